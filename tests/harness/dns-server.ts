import { createSocket } from 'node:dgram';
import { once } from 'node:events';

/** A DNS server on loopback that knows one thing at a time: the IPv4 addresses that every name has. */
export interface DnsServer extends AsyncDisposable {
  readonly port: number;
  addresses: readonly string[];
}

const typeA = 1;
const classIn = 1;
/** A response, authoritative, without an error. */
const flags = 0x8400;
const headerBytes = 12;

/** Answers over UDP, with a TTL of 0. https://www.rfc-editor.org/rfc/rfc1035#section-4 */
export async function startDnsServer(): Promise<DnsServer> {
  const socket = createSocket('udp4');
  const server = {
    port: 0,
    addresses: [] as readonly string[],
    async [Symbol.asyncDispose]() {
      socket.close();
      await once(socket, 'close');
    },
  };
  socket.on('message', (query, { port, address }) => {
    const nameEnd = query.indexOf(0, headerBytes);
    const question = query.subarray(headerBytes, nameEnd + 5);
    const asksForA = query.readUInt16BE(nameEnd + 1) === typeA;
    const answers = asksForA ? server.addresses.map(addressRecord) : [];
    const header = Buffer.alloc(headerBytes);
    header.writeUInt16BE(query.readUInt16BE(0), 0);
    header.writeUInt16BE(flags, 2);
    header.writeUInt16BE(1, 4);
    header.writeUInt16BE(answers.length, 6);
    socket.send(Buffer.concat([header, question, ...answers]), port, address);
  });
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  server.port = socket.address().port;
  return server;
}

/** The name is a pointer to that of the question. */
function addressRecord(address: string): Buffer {
  const record = Buffer.alloc(16);
  record.writeUInt16BE(0xc000 | headerBytes, 0);
  record.writeUInt16BE(typeA, 2);
  record.writeUInt16BE(classIn, 4);
  record.writeUInt32BE(0, 6);
  record.writeUInt16BE(4, 10);
  record.set(address.split('.').map(Number), 12);
  return record;
}
