// A phone in headless Chromium:
//
//   node browser.js CHROMIUM SCRIPT SERVER USER DOMAIN PASSWORD
//
// SCRIPT is the phone, which is bundled for a page of its own; SERVER a wss: or ws:
// address, whose certificate isn't checked. It prints what happens as JSON objects,
// one a line, and takes commands the same way:
//
//   {"do": "message", "to": USER, "text": …, "type": …, "tag": …}
//   {"do": "unregister"}, {"do": "stop"}, {"do": "start"}
'use strict';
const {spawn} = require('child_process');
const fs = require('fs');
const http = require('http');
const os = require('os');
const path = require('path');
const esbuild = require('esbuild');
const {print, commands} = require('../smpp/lines.js');

const [chromium, script, server, user, domain, password] = process.argv.slice(2);

// pollFor is how long the page waits for a command before it asks again.
const pollFor = 20000;

const bundle = esbuild.buildSync({
  entryPoints: [path.resolve(__dirname, script)], bundle: true, write: false, format: 'iife', define: {global: 'window'},
  nodePaths: [process.env.NODE_PATH],
}).outputFiles[0].text;

const waiting = []; // commands
let asking = null; // the page's request for one

function hand() {
  if (!asking || waiting.length === 0) return;
  asking.end(JSON.stringify(waiting.shift()));
  asking = null;
}

const routes = {
  '/': (request, response) => {
    response.setHeader('Content-Type', 'text/html; charset=utf-8');
    response.end('<!doctype html><title>phone</title><script src="/phone.js"></script>');
  },
  '/phone.js': (request, response) => {
    response.setHeader('Content-Type', 'text/javascript; charset=utf-8');
    response.end(bundle);
  },
  '/event': (request, response) => {
    const chunks = [];
    request.on('data', (chunk) => chunks.push(chunk));
    request.on('end', () => {
      print(JSON.parse(Buffer.concat(chunks).toString()));
      response.end();
    });
  },
  '/command': (request, response) => {
    asking = response;
    setTimeout(() => {
      if (asking !== response) return;
      asking = null;
      response.end('null');
    }, pollFor);
    hand();
  },
};

const page = http.createServer((request, response) => {
  const route = routes[new URL(request.url, 'http://page').pathname];
  if (route) return route(request, response);
  response.statusCode = 404;
  response.end();
});

page.listen(0, '127.0.0.1', () => {
  const profile = fs.mkdtempSync(path.join(os.tmpdir(), 'phone-'));
  const query = new URLSearchParams({server, user, domain, password});
  // The browser ends with this process, however that ends.
  const browser = spawn('setpriv', ['--pdeathsig', 'KILL', chromium,
    '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage', '--ignore-certificate-errors', '--user-data-dir=' + profile,
    'http://127.0.0.1:' + page.address().port + '/?' + query,
  ], {stdio: ['ignore', 'ignore', 'inherit']});
  browser.on('exit', (code) => print({event: 'browser ended', code}));
  process.on('exit', () => {
    browser.kill('SIGKILL');
    fs.rmSync(profile, {recursive: true, force: true, maxRetries: 3});
  });
});

commands((command) => {
  waiting.push(command);
  hand();
});
