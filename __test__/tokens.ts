// Tokens as other issuers than the hub make them, by Node's own cryptography.

import { createHmac, createSign, generateKeyPairSync, sign, type KeyObject } from 'node:crypto'

export interface Claims {
  tenantId?: string
  agentId?: string
  exp?: number
  [claim: string]: unknown
}

const encode = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url')

function claimsOf(claims: Claims): Claims {
  return { tenantId: 'acme', agentId: 'agent', exp: Math.floor(Date.now() / 1000) + 600, ...claims }
}

/** A token signed with a secret that the hub shares. */
export function signedBySecret(secret: string, claims: Claims = {}): string {
  const signed = `${encode({ alg: 'HS256', typ: 'JWT' })}.${encode(claimsOf(claims))}`
  return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`
}

/** An issuer whose public key is all that a hub has. */
export class Issuer {
  readonly algorithm: 'RS256' | 'EdDSA'
  readonly kid: string
  readonly #private: KeyObject
  readonly #public: KeyObject

  constructor(algorithm: 'RS256' | 'EdDSA', kid = 'key 1') {
    const pair =
      algorithm === 'RS256'
        ? generateKeyPairSync('rsa', { modulusLength: 2048 })
        : generateKeyPairSync('ed25519')
    this.algorithm = algorithm
    this.kid = kid
    this.#private = pair.privateKey
    this.#public = pair.publicKey
  }

  get pem(): string {
    return this.#public.export({ type: 'spki', format: 'pem' }).toString()
  }

  get jwks(): string {
    const jwk = { ...this.#public.export({ format: 'jwk' }), kid: this.kid, alg: this.algorithm, use: 'sig' }
    return JSON.stringify({ keys: [jwk] })
  }

  token(claims: Claims = {}): string {
    const signed = `${encode({ alg: this.algorithm, typ: 'JWT', kid: this.kid })}.${encode(claimsOf(claims))}`
    const signature =
      this.algorithm === 'RS256'
        ? createSign('RSA-SHA256').update(signed).sign(this.#private)
        : sign(null, Buffer.from(signed), this.#private)
    return `${signed}.${signature.toString('base64url')}`
  }
}
