// A real OpenID Connect issuer with discovery, on a port of its own. Prints `url URL`; then, for each line of standard
// input, `token TOKEN` of a new token: the line is its claims in JSON, after `rotate ` with a key made for it.
'use strict';

const readline = require('readline');
const { OAuth2Server } = require('oauth2-mock-server');

async function main() {
  const server = new OAuth2Server();
  await server.issuer.keys.generate('RS256');
  await server.start(0, '127.0.0.1');
  console.log(`url ${server.issuer.url}`);
  let kid;
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const rotate = line.startsWith('rotate ');
    if (rotate) kid = (await server.issuer.keys.generate('RS256')).kid;
    const claims = JSON.parse(rotate ? line.slice('rotate '.length) : line);
    const token = await server.issuer.buildToken({
      kid,
      scopesOrTransform: (_header, payload) => Object.assign(payload, claims),
    });
    console.log(`token ${token}`);
  }
  await server.stop();
}

main();
