// Rooms of Socket.IO over its WebSocket transport, with what its page on memory and
// performance recommends. `node socketio.mjs PORT`
import { createServer } from 'node:http';
import { Server } from 'socket.io';

const server = createServer();
const io = new Server(server, {
  transports: ['websocket'],
  perMessageDeflate: false,
  httpCompression: false,
  serveClient: false,
});

// The first HTTP request of each connection is kept otherwise.
io.engine.on('connection', (socket) => {
  socket.request = null;
});

io.on('connection', (socket) => {
  socket.on('join', (room, ack) => {
    socket.join(room);
    ack();
  });
  socket.on('m', (room, data, ack) => {
    io.to(room).emit('m', data);
    ack();
  });
});

server.listen({ port: Number(process.argv[2]), host: '127.0.0.1', backlog: 4096 });
