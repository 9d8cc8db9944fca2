// An SMSC made of node-smpp: node smsc.js HOST PORT. It prints what happens as
// JSON objects, one a line, and takes commands the same way:
//
//   {"behave": {"delay": MS, "throttle": true, "drop": N, "receipt": MS}}
//       from now on: how long answers take; whether all are ESME_RTHROTTLED; after
//       how many more messages the connection breaks, before the last of them is
//       answered; after how long receipts come (none if it isn't said)
//   {"deliver": [{…}, …]}
//       sends these deliver_sm, one after the other, on the latest bind
'use strict';
const smpp = require('smpp');
const {print, commands, text} = require('./lines.js');

const [host, port] = process.argv.slice(2);
const binds = [];
let behave = {};
let count = 0;

const server = smpp.createServer((session) => {
  session.on('error', (error) => print({event: 'error', reason: String(error)}));
  session.on('close', () => print({event: 'closed'}));
  for (const command of ['bind_transceiver', 'bind_transmitter', 'bind_receiver']) {
    session.on(command, (pdu) => {
      binds.push(session);
      session.send(pdu.response({system_id: 'node'}));
      print({event: 'bound', command, system_id: pdu.system_id, password: pdu.password, version: pdu.interface_version});
    });
  }
  session.on('enquire_link', (pdu) => session.send(pdu.response()));
  session.on('unbind', (pdu) => {
    print({event: 'unbind'});
    session.send(pdu.response());
    session.close();
  });
  session.on('submit_sm', (pdu) => submit(session, pdu));
}).listen(Number(port), host, () => print({event: 'listening'}));
server.on('error', (error) => print({event: 'error', reason: String(error)}));

function submit(session, pdu) {
  const seen = {from: pdu.source_addr, to: pdu.destination_addr, text: text(pdu), coding: pdu.data_coding};
  if (behave.throttle) {
    print({event: 'throttled', ...seen});
    session.send(pdu.response({command_status: smpp.ESME_RTHROTTLED}));
    return;
  }
  const id = `n${++count}`;
  print({event: 'took', id, ...seen});
  if (behave.drop && --behave.drop === 0) {
    session.destroy();
    return;
  }
  const {receipt, delay} = behave;
  const answer = () => {
    session.send(pdu.response({message_id: id}));
    if (receipt !== undefined && pdu.registered_delivery & 1) {
      setTimeout(() => report(session, pdu, id), receipt);
    }
  };
  delay ? setTimeout(answer, delay) : answer();
}

// report sends a receipt in the text form of SMPP 3.4 appendix B, without TLVs.
function report(session, pdu, id) {
  session.deliver_sm({
    source_addr_ton: pdu.dest_addr_ton, source_addr_npi: pdu.dest_addr_npi, source_addr: pdu.destination_addr,
    dest_addr_ton: pdu.source_addr_ton, dest_addr_npi: pdu.source_addr_npi, destination_addr: pdu.source_addr,
    esm_class: smpp.ESM_CLASS.MC_DELIVERY_RECEIPT,
    short_message: `id:${id} sub:001 dlvrd:001 submit date:2601010000 done date:2601010001 stat:DELIVRD err:000 text:`,
  }, (response) => print({event: 'reported', id, status: response.command_status}));
}

function deliver(session, [pdu, ...rest]) {
  if (!pdu) return;
  if (pdu.udh) {
    pdu.short_message = {udh: Buffer.from(pdu.udh, 'hex'), message: pdu.short_message};
    pdu.esm_class = smpp.ESM_CLASS.UDH_INDICATOR;
    delete pdu.udh;
  }
  session.deliver_sm(pdu, (response) => {
    print({event: 'delivered', status: response.command_status});
    deliver(session, rest);
  });
}

commands((command) => {
  if (command.behave) {
    behave = command.behave;
    print({event: 'behaves'});
  }
  if (command.deliver) {
    deliver(binds[binds.length - 1], command.deliver);
  }
});
