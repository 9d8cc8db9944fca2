// A phone made of JsSIP, for a page: it registers with what the page's address
// says, prints what happens by POST /event, and takes commands from GET /command.
'use strict';
const JsSIP = require('jssip');

const options = new URLSearchParams(location.search);

const print = (event) => fetch('/event', {method: 'POST', body: JSON.stringify(event)});

const phone = new JsSIP.UA({
  sockets: [new JsSIP.WebSocketInterface(options.get('server'))],
  uri: 'sip:' + options.get('user') + '@' + options.get('domain'),
  password: options.get('password'),
  register_expires: 600,
});

phone.on('connected', () => print({event: 'connected'}));
phone.on('disconnected', ({code, reason}) => print({event: 'disconnected', code, reason: String(reason)}));
phone.on('registered', ({response}) => print({event: 'registered', contact: phone.contact.uri.toString(), status: response.status_code}));
phone.on('unregistered', () => print({event: 'unregistered'}));
phone.on('registrationFailed', ({cause}) => print({event: 'registrationFailed', cause}));
phone.on('newMessage', ({originator, request}) => {
  if (originator !== 'remote') return;
  print({
    event: 'message', from: request.from.uri.user, text: request.body, type: request.getHeader('Content-Type'),
    call: request.call_id, tag: request.from_tag, cseq: request.cseq,
  });
});

const todo = {
  message({to, text, type, tag}) {
    const done = ({response, cause}) => print({event: 'answer', tag, status: response ? response.status_code : 0, cause});
    phone.sendMessage('sip:' + to + '@' + options.get('domain'), text, {
      contentType: type || 'text/plain', eventHandlers: {succeeded: done, failed: done},
    });
  },
  unregister() { phone.unregister(); },
  stop() { phone.stop(); },
  start() { phone.start(); },
};

async function commands() {
  for (;;) {
    const command = await (await fetch('/command')).json();
    if (command) todo[command.do](command);
  }
}

phone.start();
commands();
