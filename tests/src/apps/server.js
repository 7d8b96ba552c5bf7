// A small web server, and an agent beside it. The files `mode` and `agent` say how they behave.
'use strict';
const fs = require('fs');
const http = require('http');
const net = require('net');

const [port, agentPort] = process.argv.slice(2);
const read = (name) => fs.readFileSync(`${__dirname}/${name}`, 'utf8');

function answer(response, status, body) {
  response.writeHead(status, { 'Content-Type': 'text/plain', 'Content-Length': body.length });
  response.end(body);
}

const behaviours = {
  slow: (request, response) => setTimeout(() => answer(response, 200, 'ready\n'), 1000),
  broken: (request, response) => answer(response, 500, 'no connection to the database\n'),
  starting: (request, response) => answer(response, 200, 'starting\n'),
  // Headers, and then nothing for a while.
  stuck: (request, response) => {
    response.writeHead(200, { 'Content-Length': 6 });
    response.flushHeaders();
    setTimeout(() => response.end('ready\n'), 1000);
  },
  resetting: (request) => request.socket.resetAndDestroy(),
  closing: (request) => request.socket.end(),
  rambling: (request) => request.socket.end('READY\r\n'),
};

http
  .createServer((request, response) => {
    const behave = behaviours[read('mode')];
    if (behave) behave(request, response);
    else answer(response, 200, 'ready\n');
  })
  .listen(Number(port), '::');

net
  .createServer((socket) => {
    socket.on('error', () => {});
    socket.end(`${read('agent')}\n`);
  })
  .listen(Number(agentPort), '::');
