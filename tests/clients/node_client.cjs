// node-postgres: callbacks on one socket, its own cancel, COPY by streams.
'use strict';

const fs = require('fs');
const { Readable } = require('stream');
const { pipeline } = require('stream/promises');
const { Client } = require('pg');
const copy = require('pg-copy-streams');

const LARGE = 64 * 1024 * 1024;
const TABLE = `node_${process.pid}`;

function settings() {
  const plain = process.env.PGSSLMODE === 'disable';
  return {
    host: process.env.PGHOST,
    port: Number(process.env.PGPORT),
    database: process.env.PGDATABASE,
    user: process.env.PGUSER,
    password: process.env.PGPASSWORD,
    ssl: plain ? false : { ca: fs.readFileSync(process.env.PGSSLROOTCERT), servername: 'localhost' },
  };
}

async function connected(body) {
  const client = new Client(settings());
  await client.connect();
  try {
    await body(client);
  } finally {
    await client.end();
  }
}

function same(found, wanted) {
  const [a, b] = [JSON.stringify(found), JSON.stringify(wanted)];
  if (a !== b) throw new Error(`${a} is not ${b}`);
}

async function fails(promise, sqlstate) {
  try {
    await promise;
  } catch (error) {
    same(error.code, sqlstate);
    return;
  }
  throw new Error(`no error, wanted ${sqlstate}`);
}

const cases = {
  queries_with_parameters: () =>
    connected(async (client) => {
      const result = await client.query('SELECT $1::int AS n, $2::text AS t, $3::text AS nothing', [7, 'späße', null]);
      same(result.rows, [{ n: 7, t: 'späße', nothing: null }]);
      const several = await client.query('SELECT 1 AS a; SELECT 2 AS a');
      same(several.map((one) => one.rows[0].a), [1, 2]);
    }),

  prepared_statements_are_reused: () =>
    connected(async (client) => {
      for (let number = 0; number < 100; number++) {
        const result = await client.query({ name: 'double', text: 'SELECT $1::int * 2 AS n', values: [number] });
        same(result.rows, [{ n: number * 2 }]);
      }
    }),

  an_error_leaves_the_session_usable: () =>
    connected(async (client) => {
      await fails(client.query('SELECT 1/0'), '22012');
      await fails(client.query('SELECT $1::int', ['no number']), '22P02');
      same((await client.query('SELECT 1 AS n')).rows, [{ n: 1 }]);
    }),

  copy_in_and_out: () =>
    connected(async (client) => {
      await client.query(`CREATE TABLE ${TABLE} (n int, t text)`);
      const lines = Array.from({ length: 10000 }, (_, n) => `${n}\trow ${n}\n`);
      await pipeline(Readable.from(lines), client.query(copy.from(`COPY ${TABLE} FROM STDIN`)));
      const out = client.query(copy.to(`COPY (SELECT * FROM ${TABLE} ORDER BY n) TO STDOUT`));
      let text = '';
      for await (const chunk of out) text += chunk;
      same(text === lines.join(''), true);
      await client.query(`DROP TABLE ${TABLE}`);
    }),

  cancel_stops_a_running_statement: () =>
    connected(async (client) => {
      const query = fails(client.query('SELECT pg_sleep(60)'), '57014');
      const active = client._activeQuery || client.activeQuery;
      setTimeout(() => new Client(settings()).cancel(client, active), 500);
      await query;
      same((await client.query('SELECT 1 AS n')).rows, [{ n: 1 }]);
    }),

  notifications_arrive: () =>
    connected(async (client) => {
      const heard = new Promise((resolve) => client.once('notification', (note) => resolve(note.payload)));
      await client.query('LISTEN news');
      await connected((sender) => sender.query("NOTIFY news, 'first'"));
      same(await heard, 'first');
    }),

  large_values_pass_both_ways: () =>
    connected(async (client) => {
      const text = (await client.query("SELECT repeat('x', $1) AS t", [LARGE])).rows[0].t;
      same(text.length, LARGE);
      same((await client.query('SELECT length($1::text) AS n', [text])).rows, [{ n: LARGE }]);
    }),

  a_hundred_sessions_at_once: async () => {
    const clients = Array.from({ length: 100 }, () => new Client(settings()));
    await Promise.all(clients.map((client) => client.connect()));
    const results = await Promise.all(clients.map((client, n) => client.query('SELECT $1::int AS n', [n])));
    same(results.map((result) => result.rows[0].n), clients.map((_, n) => n));
    await Promise.all(clients.map((client) => client.end()));
  },
};

async function main() {
  console.log(`plan ${Object.keys(cases).length}`);
  for (const [name, run] of Object.entries(cases)) {
    const began = Date.now();
    let timer;
    const late = new Promise((_, reject) => (timer = setTimeout(() => reject(new Error('not within 120 s')), 120000)));
    try {
      await Promise.race([run(), late]);
      console.log(`ok ${name} (${((Date.now() - began) / 1000).toFixed(1)} s)`);
    } catch (error) {
      console.log(`failed ${name}: ${String(error.stack).split('\n').slice(0, 4).join(' | ')}`);
    }
    clearTimeout(timer);
  }
  process.exit(0);
}

main();
