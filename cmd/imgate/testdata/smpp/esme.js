// An ESME made of node-smpp: node esme.js HOST PORT. It prints what happens as JSON
// objects, one a line, and takes commands the same way:
//
//   {"bind": NAME, "as": "bind_transceiver", "pdu": {…}}
//       opens a connection and binds
//   {"over": NAME, "send": "submit_sm", "pdu": {…}, "tag": …}
//       sends a request; the response is printed with its tag
//   {"over": NAME, "burst": N, "window": N, "from": [ADDRESS, …], "to": [ADDRESS, …]}
//       submits N messages, so many at a time, that read "FROM TO NUMBER", with the
//       addresses in turn
'use strict';
const smpp = require('smpp');
const {print, commands, text} = require('./lines.js');

const [host, port] = process.argv.slice(2);
const binds = {};

function bind({bind: name, as, pdu}) {
  const session = smpp.connect({host, port: Number(port)}, () => {
    session[as](pdu, (response) => print({event: 'bound', bind: name, status: response.command_status, system_id: response.system_id}));
  });
  binds[name] = session;
  session.on('error', (error) => print({event: 'error', bind: name, reason: String(error)}));
  session.on('close', () => print({event: 'closed', bind: name}));
  session.on('enquire_link', (pdu) => session.send(pdu.response()));
  session.on('unbind', (pdu) => session.send(pdu.response()));
  session.on('deliver_sm', (pdu) => {
    session.send(pdu.response());
    print({event: 'deliver_sm', bind: name, from: pdu.source_addr, to: pdu.destination_addr, text: text(pdu), esm_class: pdu.esm_class});
  });
}

function send({over, send: command, pdu, tag}) {
  if (pdu.udh) {
    pdu.short_message = {udh: Buffer.from(pdu.udh, 'hex'), message: pdu.short_message};
    pdu.esm_class = smpp.ESM_CLASS.UDH_INDICATOR;
    delete pdu.udh;
  }
  binds[over][command](pdu, (response) => print({
    event: response.command, tag, status: response.command_status, id: response.message_id,
    state: response.message_state, failed: response.unsuccess_sme,
  }));
}

function burst({over, burst: total, window, from, to}) {
  let next = 0;
  const one = () => {
    if (next === total) return;
    const n = next++;
    const source = from[n % from.length];
    const destination = to[n % to.length];
    const words = `${source} ${destination} ${n}`;
    binds[over].submit_sm({
      source_addr_ton: 1, source_addr_npi: 1, source_addr: source,
      dest_addr_ton: 1, dest_addr_npi: 1, destination_addr: destination, short_message: words,
    }, (response) => {
      print({event: 'submitted', text: words, status: response.command_status, id: response.message_id});
      one();
    });
  };
  for (let i = 0; i < window; i++) one();
}

commands((command) => {
  if (command.bind) bind(command);
  if (command.send) send(command);
  if (command.burst) burst(command);
});
