/* Lets an idle page rest. Gradio's loading spinner (6.31) counts time in every frame and goes on after
   it disappears, so the page wakes sixty times a second for nothing. After hundreds of frames in a
   row, each requested by the one before, later ones run once a second; by then no animation is left. */
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
