/* A strip per document with a cell per page or file. */
export const start = () => {};
