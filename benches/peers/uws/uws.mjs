// A chat room on uWebSockets.js: its publish and subscribe, a topic for each room. What a
// client sends goes to everybody in its room, the sender too. `node uws.mjs PORT`
import { createRequire } from 'node:module';

// The file itself, for the package would fall back to one that is written in JavaScript.
const { platform, arch, versions } = process;
const uWS = createRequire(import.meta.url)(
  `uWebSockets.js/binaries/uws_${platform}_${arch}_${versions.modules}.node`,
);

const app = uWS.App();

app.ws('/*', {
  compression: uWS.DISABLED,
  upgrade: (response, request, context) => {
    response.upgrade(
      { room: request.getUrl() },
      request.getHeader('sec-websocket-key'),
      request.getHeader('sec-websocket-protocol'),
      request.getHeader('sec-websocket-extensions'),
      context,
    );
  },
  open: (socket) => socket.subscribe(socket.getUserData().room),
  message: (socket, data, isBinary) => app.publish(socket.getUserData().room, data, isBinary),
});

app.listen('127.0.0.1', Number(process.argv[2]), (listening) => {
  if (!listening) process.exit(1);
});
