// Each kind of call that @supabase/postgrest-js has, against the gateway, with the answer that it must give.
import { PostgrestClient } from '@supabase/postgrest-js'
import assert from 'node:assert/strict'

const db = new PostgrestClient(process.env.GATEWAY_URL, { headers: { Authorization: `Bearer ${process.env.GATEWAY_TOKEN}` } })
let passed = 0
let failed = 0

// check NAME QUERY WANTED: WANTED is the data, or a function that judges the whole answer.
async function check(name, query, wanted) {
  try {
    const answer = await query
    if (typeof wanted === 'function') wanted(answer)
    else {
      assert.equal(answer.error, null)
      assert.deepEqual(answer.data, wanted)
    }
    passed++
  } catch (error) {
    failed++
    console.log(`FAILED ${name}: ${error.message}`)
  }
}
const ids = (...list) => list.map((id) => ({ id }))
const films = () => db.from('films').select('id').order('id')

// Filters.
await check('eq', films().eq('id', 1), ids(1))
await check('neq', films().neq('id', 1), ids(2, 3, 4, 5))
await check('gt, lt', films().gt('id', 1).lt('id', 4), ids(2, 3))
await check('gte, lte', films().gte('id', 2).lte('id', 3), ids(2, 3))
await check('like', films().like('title', '%Story'), ids(1))
await check('ilike', films().ilike('title', '%STORY'), ids(1))
await check('likeAllOf', films().likeAllOf('title', ['%o%', '%T%']), ids(1))
await check('likeAnyOf', films().likeAnyOf('title', ['Ran', 'V%']), ids(3, 4))
await check('ilikeAllOf', films().ilikeAllOf('title', ['%O%', 't%']), ids(1))
await check('ilikeAnyOf', films().ilikeAnyOf('title', ['ran', 'v%']), ids(3, 4))
await check('is null', films().is('year', null), ids(5))
await check('is true', films().is('plain', true), ids(1, 4))
await check('in', films().in('id', [1, 3]), ids(1, 3))
await check('in, quoted', db.from('odd name').insert({ 'a "column"': 1, 'sel,ect': 'x, (y)' }).then(() => db.from('odd name').select('"sel,ect"').in('"sel,ect"', ['x, (y)', 'z'])), [{ 'sel,ect': 'x, (y)' }])
await check('contains an array', films().contains('tags', ['japan']), ids(1, 3))
await check('contains JSON', films().contains('details', { score: 8.2 }), ids(3))
await check('contains a range', films().contains('length', '[86,87]'), ids(2))
await check('containedBy', films().containedBy('tags', ['paris', 'berlin']), ids(2, 4))
await check('rangeGt', films().rangeGt('length', '[140,150)'), ids(3))
await check('rangeGte', films().rangeGte('length', '[100,110)'), ids(1, 3))
await check('rangeLt', films().rangeLt('length', '[140,150)'), ids(1, 2))
await check('rangeLte', films().rangeLte('length', '[100,137)'), ids(1, 2))
await check('rangeAdjacent', films().rangeAdjacent('length', '[136,140)'), ids(1))
await check('overlaps', films().overlaps('tags', ['war', 'paris']), ids(2, 3))
await check('textSearch', films().textSearch('search', "'story'", { config: 'english' }), ids(1))
await check('textSearch plain', films().textSearch('search', 'tokyo story', { type: 'plain', config: 'english' }), ids(1))
await check('textSearch phrase', films().textSearch('title', 'tokyo story', { type: 'phrase', config: 'english' }), ids(1))
await check('textSearch websearch', films().textSearch('title', 'ran or vagabond', { type: 'websearch', config: 'english' }), ids(3, 4))
await check('match', films().match({ year: 1985, rating: 'R' }), ids(3, 4))
await check('not', films().not('year', 'is', null), ids(1, 2, 3, 4))
await check('not in', films().not('id', 'in', '(1,2)'), ids(3, 4, 5))
await check('or', films().or('id.eq.1,and(year.eq.1985,id.gt.3)'), ids(1, 4))
await check('filter', films().filter('id', 'in', '(1,2)'), ids(1, 2))
await check('JSON path', films().eq('details->>score', '7.9'), ids(2))

// Reads.
await check('select with names and casts', db.from('films').select('name:title, year::text').eq('id', 1), [{ name: 'Tokyo Story', year: '1953' }])
await check('embedding', db.from('directors').select('name, films!director_id(title)').eq('id', 1), [{ name: 'Ozu', films: [{ title: 'Tokyo Story' }] }])
await check('many to many', db.from('films').select('id, actors(name)').eq('id', 2), [{ id: 2, actors: [{ name: 'Marchand' }] }])
await check('inner with a filter', db.from('directors').select('name, films!director_id!inner(id)').lt('films.year', 1960), [{ name: 'Ozu', films: ids(1) }])
await check('or in what is embedded', db.from('directors').select('id, films!director_id(id)').eq('id', 2).or('id.eq.4', { referencedTable: 'films' }), [{ id: 2, films: ids(4) }])
await check('order and limit of what is embedded', db.from('directors').select('id, films!director_id(id)').eq('id', 2).order('id', { referencedTable: 'films', ascending: false }).limit(1, { referencedTable: 'films' }), [{ id: 2, films: ids(4) }])
await check('range of what is embedded', db.from('directors').select('id, films!director_id(id)').eq('id', 2).order('id', { referencedTable: 'films' }).range(1, 5, { referencedTable: 'films' }), [{ id: 2, films: ids(4) }])
await check('spread', db.from('films').select('id, ...director_id(director:name)').eq('id', 4), [{ id: 4, director: 'Varda' }])
await check('aggregate', db.from('films').select('id.count()'), [{ count: 5 }])
await check('order', db.from('films').select('id').order('year', { ascending: false, nullsFirst: false }).order('id').limit(2), ids(3, 4))
await check('order by what is embedded', db.from('films').select('id, d:director_id(name)').order('d(name)', { ascending: false, nullsFirst: false }).order('id').limit(1), [{ id: 2, d: { name: 'Varda' } }])
await check('range', films().range(1, 2), ids(2, 3))
await check('single', db.from('films').select('id').eq('id', 1).single(), { id: 1 })
await check('single of several', db.from('films').select('id').single(), ({ error, status }) => { assert.equal(error.code, 'PGRST116'); assert.equal(status, 406) })
await check('maybeSingle', db.from('films').select('id').eq('id', 99).maybeSingle(), null)
await check('maybeSingle of one', db.from('films').select('id').eq('id', 1).maybeSingle(), { id: 1 })
await check('csv', db.from('actors').select('id,name').eq('id', 1).csv(), 'id,name\n1,Ryu')
await check('stripNulls', db.from('films').select('id,year').eq('id', 5).stripNulls(), ids(5))
await check('count exact', db.from('films').select('id', { count: 'exact' }).limit(2).order('id'), ({ data, count }) => { assert.deepEqual(data, ids(1, 2)); assert.equal(count, 5) })
await check('count planned', db.from('films').select('id', { count: 'planned' }), ({ count }) => assert.ok(count > 0))
await check('count estimated', db.from('films').select('id', { count: 'estimated' }), ({ count }) => assert.equal(count, 5))
await check('head', db.from('films').select('*', { count: 'exact', head: true }), ({ data, count, error }) => { assert.equal(error, null); assert.equal(data, null); assert.equal(count, 5) })
await check('a schema', db.schema('public').from('actors').select('id').eq('id', 1), ids(1))
await check('a schema that is not exposed', db.schema('pg_catalog').from('pg_authid').select(), ({ error }) => assert.equal(error.code, 'PGRST106'))
await check('throwOnError', db.from('films').select('nothing').throwOnError().then(() => 'no error', (error) => error.code), (code) => assert.equal(code, 'PGRST204'))
await check('an aborted request', db.from('films').select().abortSignal(AbortSignal.abort()), ({ error }) => assert.ok(error))

// Writes.
await check('insert', db.from('actors').insert({ id: 50, name: 'Fifty' }), ({ status, data, error }) => { assert.equal(error, null); assert.equal(status, 201); assert.equal(data, null) })
await check('insert and select', db.from('actors').insert({ id: 51, name: 'Fifty-one' }).select(), [{ id: 51, name: 'Fifty-one' }])
await check('insert and single', db.from('actors').insert({ id: 52, name: 'Fifty-two' }).select('name').single(), { name: 'Fifty-two' })
await check('bulk insert', db.from('counters').insert([{ name: 'b1', value: 1 }, { name: 'b2', remark: 'r' }], { defaultToNull: false }).select(), [{ name: 'b1', value: 1, remark: 'none' }, { name: 'b2', value: 7, remark: 'r' }])
await check('bulk insert, nulls', db.from('counters').insert([{ name: 'b3', value: 1 }, { name: 'b4', value: 2, remark: 'r' }]).select('remark'), [{ remark: null }, { remark: 'r' }])
await check('insert with a count', db.from('actors').insert([{ id: 53, name: 'a' }, { id: 54, name: 'b' }], { count: 'exact' }), ({ count }) => assert.equal(count, 2))
await check('upsert', db.from('actors').upsert({ id: 50, name: 'Changed' }).select(), [{ id: 50, name: 'Changed' }])
await check('upsert, ignoring', db.from('actors').upsert([{ id: 50, name: 'x' }, { id: 55, name: 'New' }], { ignoreDuplicates: true }).select(), [{ id: 55, name: 'New' }])
await check('upsert on another key', db.from('actors').upsert({ id: 50, name: 'Changed' }, { onConflict: 'name' }).select('id'), ids(50))
await check('update', db.from('actors').update({ name: 'Updated' }).eq('id', 50).select(), [{ id: 50, name: 'Updated' }])
await check('update with a count', db.from('actors').update({ name: 'Again' }, { count: 'exact' }).eq('id', 50), ({ count, status }) => { assert.equal(count, 1); assert.equal(status, 204) })
await check('maxAffected', db.from('counters').update({ remark: 'x' }).gte('value', 1).maxAffected(1), ({ error }) => assert.equal(error.code, 'PGRST124'))
await check('delete', db.from('actors').delete().eq('id', 50).select('id'), ids(50))
await check('delete with a count', db.from('actors').delete({ count: 'exact' }).gte('id', 51), ({ count }) => assert.equal(count, 5))
await check('a conflict', db.from('actors').insert({ id: 1, name: 'Again' }), ({ error, status }) => { assert.equal(status, 409); assert.equal(error.code, '23505'); assert.ok(error.details.includes('already exists')) })
await check('a fault', db.from('actors').insert({ id: 'x' }), ({ error, status }) => { assert.equal(status, 400); assert.ok(error.message) })
await check('rollback', db.from('actors').insert({ id: 60, name: 'x' }).rollback().select('id'), ids(60))
await check('after the rollback', db.from('actors').select('id').eq('id', 60), [])

// Functions.
await check('rpc', db.rpc('add', { a: 1, b: 2 }), 3)
await check('rpc by GET', db.rpc('add', { a: 1 }, { get: true }), 11)
await check('rpc by HEAD', db.rpc('films_of', { director: 2 }, { head: true, count: 'exact' }), ({ count, error }) => { assert.equal(error, null); assert.equal(count, 2) })
await check('rpc of rows', db.rpc('films_of', { director: 2 }).select('id').gt('id', 2), ids(4))
await check('rpc of nothing', db.rpc('touch', { name: 'from-js' }), ({ error, status }) => { assert.equal(error, null); assert.equal(status, 204) })
await check('rpc that fails', db.rpc('fails'), ({ error }) => { assert.equal(error.code, 'P0001'); assert.equal(error.message, 'no luck'); assert.equal(error.hint, 'try') })
await check('explain', db.from('films').select().explain(), ({ status }) => assert.equal(status, 406))

console.log(`postgrest-js: ${passed} passed, ${failed} failed`)
process.exit(failed ? 1 : 0)
