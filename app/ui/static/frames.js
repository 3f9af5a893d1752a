/* Lets a page at rest rest. Gradio's loading mark (6.31) counts time in every frame and goes on when
   it is long gone, so that the page wakes sixty times a second for nothing. Frames asked for from
   inside a frame, hundreds in a row, come once a second from then on; an animation is long over. */
(() => {
  const FRAMES_IN_A_ROW = 300,
    SLOW_MS = 1000;
  const ask = window.requestAnimationFrame.bind(window),
    cancel = window.cancelAnimationFrame.bind(window);
  let row = 0;
  window.requestAnimationFrame = (act) => {
    const mine = row + 1;
    const run = (now) => {
      row = mine;
      try {
        act(now);
      } finally {
        row = 0;
      }
    };
    return mine <= FRAMES_IN_A_ROW ? ask(run) : -setTimeout(() => run(performance.now()), SLOW_MS);
  };
  window.cancelAnimationFrame = (id) => (id < 0 ? clearTimeout(-id) : cancel(id));
})();
