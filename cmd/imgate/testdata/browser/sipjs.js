// A phone made of SIP.js, for a page, as phone.js is one made of JsSIP.
'use strict';
const {Messager, Registerer, RegistererState, UserAgent} = require('sip.js');

const options = new URLSearchParams(location.search);

const print = (event) => fetch('/event', {method: 'POST', body: JSON.stringify(event)});

const address = (user) => UserAgent.makeURI('sip:' + user + '@' + options.get('domain'));

const phone = new UserAgent({
  uri: address(options.get('user')),
  authorizationUsername: options.get('user'),
  authorizationPassword: options.get('password'),
  transportOptions: {server: options.get('server')},
  logBuiltinEnabled: false,
  delegate: {
    onMessage(message) {
      const {request} = message;
      print({
        event: 'message', from: request.from.uri.user, text: request.body, type: request.getHeader('Content-Type'),
        call: request.callId, tag: request.fromTag, cseq: request.cseq,
      });
      message.accept();
    },
  },
});

const registerer = new Registerer(phone, {expires: 600});

registerer.stateChange.addListener((state) => {
  if (state === RegistererState.Registered) print({event: 'registered', contact: phone.contact.uri.toString()});
  if (state === RegistererState.Unregistered) print({event: 'unregistered'});
});

const todo = {
  message({to, text, type, tag}) {
    const done = ({message}) => print({event: 'answer', tag, status: message.statusCode, cause: message.reasonPhrase});
    new Messager(phone, address(to), text, type || 'text/plain').message({requestDelegate: {onAccept: done, onReject: done}});
  },
  unregister() { registerer.unregister(); },
  stop() { phone.stop(); },
  async start() {
    await phone.start();
    await registerer.register();
  },
};

async function commands() {
  for (;;) {
    const command = await (await fetch('/command')).json();
    if (command) todo[command.do](command);
  }
}

todo.start().catch((error) => print({event: 'error', reason: String(error)}));
commands();
