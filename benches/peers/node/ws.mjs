// A chat room on the npm package ws: what a client sends is passed on to everybody
// in its room, as the README of ws shows it. `node ws.mjs PORT`
import { createServer } from 'node:http';
import { WebSocket, WebSocketServer } from 'ws';

const server = createServer();
const sockets = new WebSocketServer({ server, perMessageDeflate: false, clientTracking: false });
const rooms = new Map();

sockets.on('connection', (socket, request) => {
  const name = request.url;
  let room = rooms.get(name);
  if (!room) rooms.set(name, (room = new Set()));
  room.add(socket);
  socket.on('error', () => {});
  socket.on('close', () => room.delete(socket));
  socket.on('message', (data, isBinary) => {
    for (const member of room) {
      if (member.readyState === WebSocket.OPEN) member.send(data, { binary: isBinary });
    }
  });
});

server.listen({ port: Number(process.argv[2]), host: '127.0.0.1', backlog: 4096 });
