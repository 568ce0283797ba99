// Whether two databases hold the same, up to the integers that each has given its rows: foreign keys and declared
// references are followed, not compared. Rows are coloured by what they hold, and then again by the colours of the
// rows that they reference and that reference them, until that tells no more of them apart.

import { createHash } from 'node:crypto'

import type { MemoryDatabase } from './agentdb_support'

/** A column whose integers are numbers of rows of the table that another column names. */
export interface ColumnReference {
  table: string
  column: string
  by: string
  to: Record<string, string>
}

interface Row {
  table: string
  number: number | null
  content: string
  parents: Array<[column: string, table: string, number: unknown]>
  colour: string
}

const hash = (...parts: unknown[]): string => createHash('sha256').update(JSON.stringify(parts)).digest('hex')

function described(value: unknown): unknown {
  return value instanceof Uint8Array ? ['blob', Buffer.from(value).toString('hex')] : value
}

/** What the tables of a database hold: a sorted list of colours for each table. */
export function shape(db: MemoryDatabase, references: ColumnReference[]): Record<string, string[]> {
  const tables = db
    .prepare("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name NOT LIKE '\\_federation\\_%' ESCAPE '\\' ORDER BY name")
    .all() as Array<{ name: string }>
  const rows = tables.flatMap(({ name }) => read(db, name, references))
  const byNumber = new Map(rows.map((row) => [`${row.table} ${row.number}`, row]))
  // As many rounds as a chain of references can have links that matter here.
  for (let round = 0; round < 8; round++) {
    const children = new Map<Row, string[]>()
    const next = rows.map((row) => {
      const parents = row.parents.map(([column, table, number]) => {
        const parent = byNumber.get(`${table} ${String(number)}`)
        if (parent) children.set(parent, [...(children.get(parent) ?? []), `${row.table}.${column} ${row.colour}`])
        return [column, number === null ? null : (parent?.colour ?? 'nobody')]
      })
      return { row, parents }
    })
    for (const { row, parents } of next.map((it) => it)) {
      row.colour = hash(row.content, parents, (children.get(row) ?? []).sort())
    }
  }
  const colours = (name: string): string[] => rows.filter((row) => row.table === name).map((row) => row.colour)
  return Object.fromEntries(tables.map(({ name }) => [name, colours(name).sort()]))
}

function read(db: MemoryDatabase, table: string, references: ColumnReference[]): Row[] {
  const columns = db.prepare(`PRAGMA table_info("${table}")`).all() as Array<{ name: string; type: string; pk: number }>
  const keys = db.prepare(`PRAGMA foreign_key_list("${table}")`).all() as Array<{ from: string; table: string }>
  const numbering = columns.filter((column) => column.pk > 0)
  const number = numbering.length === 1 && numbering[0]?.type === 'INTEGER' ? numbering[0].name : null
  const own = references.filter((reference) => reference.table === table)
  return (db.prepare(`SELECT * FROM "${table}"`).all() as Array<Record<string, unknown>>).map((values) => {
    const parents: Row['parents'] = keys.map((key) => [key.from, key.table, values[key.from]])
    for (const { column, by, to } of own) parents.push([column, to[String(values[by])] ?? '', values[column]])
    const followed = new Set([number, ...parents.map(([column]) => column)])
    const kept = Object.entries(values).filter(([column]) => !followed.has(column))
    const content = hash(table, kept.map(([column, value]) => [column, described(value)]))
    return { table, number: number === null ? null : (values[number] as number), content, parents, colour: content }
  })
}
