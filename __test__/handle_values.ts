// Values that a careless driver changes, as SQL.

export const VALUES: Array<[string, string]> = [
  ['null', 'NULL'],
  ['0', '0'],
  ['a small integer', '-7'],
  ['the least integer of 32 bits', '-2147483648'],
  ['an integer of 33 bits', '2147483648'],
  ['the least integer', '-9223372036854775808'],
  ['the greatest integer', '9223372036854775807'],
  ['an integer that no double holds', '9007199254740993'],
  ['a double that is whole', '1.0'],
  ['a double that is whole and large', '4294967296.0'],
  ['a double beyond every integer', '1e300'],
  ['a double as good as an integer that no double holds', '9007199254740992.0'],
  ['zero', '0.0'],
  ['minus zero', '-0.0'],
  ['the least double', '5e-324'],
  ['infinity', '9e999'],
  ['minus infinity', '-9e999'],
  ['empty text', "''"],
  ['text that looks like a number', "'1.0'"],
  ['text with NULs', "'a' || char(0) || 'b' || char(0)"],
  ['text that is a NUL', 'char(0)'],
  ['text with a byte order mark', 'char(65279) || char(65279)'],
  ['astral text', "'\u{1F980}\u{10FFFF}'"],
  ['a noncharacter', 'char(65535)'],
  ['long text', "replace(hex(zeroblob(50000)), '0', '\u00e9')"],
  ['an empty blob', "x''"],
  ['a blob that looks like text', "x'78'"],
  ['a blob that is no text', "x'00ff80'"],
  ['a blob of a megabyte', 'randomblob(1000000)'],
]

/** Each value with its type, so that drivers that read inexactly still tell every difference. */
export const EXACT = `SELECT id, typeof(value), CASE typeof(value)
    WHEN 'real' THEN value
    WHEN 'integer' THEN CAST(value AS TEXT)
    ELSE hex(CAST(value AS BLOB)) END
  FROM notes ORDER BY id`

/** Doubles and integers of every magnitude, always the same ones. */
export function randomValues(count: number): Array<[string, string]> {
  let state = 1n
  const next = (): bigint => {
    state = (state * 6364136223846793005n + 1442695040888963407n) & 0xffff_ffff_ffff_ffffn
    return state ^ (state >> 29n)
  }
  const bits = new DataView(new ArrayBuffer(8))
  return Array.from({ length: count }, (_, i) => {
    bits.setBigUint64(0, next() & 0xffff_ffff_ffff_ffffn)
    const real = bits.getFloat64(0)
    const integer = BigInt.asIntN(64, next()) >> BigInt(i % 60)
    return [`random ${i}`, i % 2 === 0 && Number.isFinite(real) ? real.toExponential() : String(integer)]
  })
}
