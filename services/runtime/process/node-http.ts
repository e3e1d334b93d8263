import process from 'node:process';

/**
 * `node:http`. An `import` of it reads all of its exports, and one of them (`WebSocket`) loads undici: 30 ms of each
 * start, and some 5 MB.
 */
export const http = process.getBuiltinModule('node:http');
