// Prints the results of benches/peers/run as one Markdown table, and below it what a
// reader of the numbers must know: what was lost, and where the driver was the limit.
// `node table.mjs FOLDER PROGRAM...`
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

const [folder, ...programs] = process.argv.slice(2);
const scenarios = ['A', 'B', 'B2', 'C', 'D'];
const remarks = [];

function result(program, scenario) {
  const file = join(folder, `${program}.${scenario}.json`);
  return existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : undefined;
}

function remark(program, scenario, { groups: [group], broken, own_cpu: cores }) {
  const { lost, repeated, out_of_order: late, unanswered, refused } = group;
  const counts = { lost, repeated, 'out of order': late, unanswered, refused, closed: broken };
  const wrong = Object.entries(counts).filter(([, count]) => count > 0);
  const text = wrong.map(([what, count]) => `${count} ${what}`);
  if (cores > 0.9) text.push(`the driver took ${cores.toFixed(2)} of its core`);
  if (text.length > 0) remarks.push(`- ${program}, ${scenario}: ${text.join(', ')}`);
}

function cost(found) {
  // Null when nothing arrived.
  return found?.server.cpu_us_per_delivery?.toFixed(2) ?? '–';
}

const header = ['program', 'durable', ...scenarios.map((name) => `${name} us`), 'D last p50 ms', 'KiB/connection'];
const rows = programs.map((entry) => {
  const [program, durable] = entry.split(':');
  const found = scenarios.map((scenario) => {
    const line = result(program, scenario);
    if (line) remark(program, scenario, line);
    return line;
  });
  const large = found.at(-1);
  const last = large ? (large.groups[0].last_delivery.p50 / 1000).toFixed(1) : '–';
  const memory = large ? (large.server.resident_per_connection / 1024).toFixed(1) : '–';
  return [program, durable, ...found.map(cost), last, memory];
});

const widths = header.map((_, column) => Math.max(...[header, ...rows].map((row) => row[column].length)));
const print = (cells) =>
  console.log(`| ${cells.map((cell, i) => (i < 2 ? cell.padEnd(widths[i]) : cell.padStart(widths[i]))).join(' | ')} |`);
print(header);
console.log(`|${widths.map((width, i) => (i < 2 ? '-'.repeat(width + 2) : `${'-'.repeat(width + 1)}:`)).join('|')}|`);
rows.forEach(print);
if (remarks.length > 0) console.log(`\n${remarks.join('\n')}`);
