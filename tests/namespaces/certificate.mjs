// A certificate for a hub that is not on this machine's loopback.

import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

/** A key, and a certificate for an address by the CA of these credentials, as options of the hub. */
export function certificateFor(address, { caCertPem, caKeyPem }) {
  const folder = mkdtempSync(path.join(tmpdir(), 'federation-certificate-'));
  const at = (name) => path.join(folder, name);
  const openssl = (line) => execFileSync('openssl', line.split(' '), { cwd: folder, stdio: 'ignore' });
  try {
    writeFileSync(at('ca.crt'), caCertPem);
    writeFileSync(at('ca.key'), caKeyPem);
    writeFileSync(at('names'), `subjectAltName=IP:${address}\nextendedKeyUsage=serverAuth`);
    openssl('req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=hub -keyout hub.key -out hub.csr');
    openssl('x509 -req -in hub.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -out hub.crt -extfile names');
    return { certPem: readFileSync(at('hub.crt'), 'utf8'), keyPem: readFileSync(at('hub.key'), 'utf8') };
  } finally {
    rmSync(folder, { recursive: true });
  }
}
