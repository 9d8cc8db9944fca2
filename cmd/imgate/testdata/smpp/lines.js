// What the scripts of this directory have in common.
'use strict';
const readline = require('readline');

// print says what has happened: a JSON object on a line.
exports.print = (event) => process.stdout.write(JSON.stringify(event) + '\n');

// commands calls take with each command of standard input, and ends the program
// with it.
exports.commands = (take) => {
  const input = readline.createInterface({input: process.stdin});
  input.on('line', (line) => take(JSON.parse(line)));
  input.on('close', () => process.exit(0));
};

// text is what a message says, wherever that stands in it.
exports.text = (pdu) => {
  const body = pdu.message_payload || pdu.short_message;
  return body && body.message !== undefined ? body.message.toString() : String(body || '');
};
