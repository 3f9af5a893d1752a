/* What a question will cost. */
export const start = () => {};
