// Checks the dashboards against Grafana's own types (npm's @grafana/schema): each is written as a typed constant, and
// TypeScript refuses a field that does not exist, a value of another type, or a word that is none of an enumeration's.
// The options and the custom fields of each panel are those of its own type.
//   node check.mjs FILE.json ...
import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const here = dirname(fileURLToPath(import.meta.url))
const PANELS = { stat: 'Stat', table: 'Table', timeseries: 'TimeSeries' }

// A JSON document has the words of an enumeration, and not its members. What a panel leaves out has a default.
const TYPES = `
import type { Dashboard, Panel, RowPanel, FieldConfigSource, VariableModel } from '@grafana/schema'
${Object.entries(PANELS).map(([type, name]) => `import type * as ${name} from '@grafana/schema/dist/esm/raw/composable/${type}/panelcfg/x/${name}PanelCfg_types.gen'`).join('\n')}

type Words<T> =
  unknown extends T ? T
  : T extends string ? \`\${T}\`
  : T extends number ? (\`\${T}\` extends \`\${infer N extends number}\` ? N : T)
  : T extends boolean | null | undefined ? T
  : T extends ReadonlyArray<infer I> ? Array<Words<I>>
  : { [K in keyof T]: Words<T[K]> }
type Optional<T> = T extends Array<infer I> ? Array<Optional<I>> : T extends object ? { [K in keyof T]?: Optional<T[K]> } : T

// The fields of a query of the Prometheus data source, which is not in the package.
interface Query {
  refId: string
  datasource: { type: 'prometheus'; uid: string }
  expr: string
  legendFormat?: string
  instant?: boolean
  range?: boolean
  format?: 'time_series' | 'table' | 'heatmap'
  interval?: string
}
type Of<Type extends string, Options, Custom> =
  Omit<Words<Panel>, 'type' | 'options' | 'fieldConfig' | 'targets'>
  & { type: Type; options: Optional<Words<Options>>; targets: Query[] }
  & { fieldConfig: Omit<Words<FieldConfigSource>, 'defaults'>
      & { defaults: Omit<Words<FieldConfigSource['defaults']>, 'custom'> & { custom?: Optional<Words<Custom>> } } }

export type StatPanel = Of<'stat', Stat.Options, Record<string, never>>
export type TablePanel = Of<'table', Table.Options, Table.FieldConfig>
export type TimeSeriesPanel = Of<'timeseries', TimeSeries.Options, TimeSeries.FieldConfig>
export type Row = Words<RowPanel>
export type Frame = Omit<Words<Dashboard>, 'panels' | 'templating'> & { templating: { list: Words<VariableModel>[] } }
`

writeFileSync(join(here, 'types.ts'), TYPES)
// The check itself is checked: each of these must be refused.
writeFileSync(join(here, 'mistakes.ts'), `
import type { Frame, StatPanel, TablePanel, TimeSeriesPanel } from './types'
// @ts-expect-error: no word of the enumeration
export const word: StatPanel['options'] = { colorMode: 'valu' }
// @ts-expect-error: no such option
export const option: TablePanel['options'] = { showHeadr: true }
// @ts-expect-error: another type
export const kind: TimeSeriesPanel['options'] = { legend: { showLegend: 'yes' } }
// @ts-expect-error: no such custom field
export const field: TimeSeriesPanel['fieldConfig']['defaults']['custom'] = { fillOpacit: 1 }
// @ts-expect-error: no such field of a query
export const query: StatPanel['targets'] = [{ refId: 'A', datasource: { type: 'prometheus', uid: '' }, expression: '1' }]
// @ts-expect-error: no number of the enumeration
export const number: Frame['graphTooltip'] = 7
`)
const files = process.argv.slice(2).map((path) => {
  const { panels, ...frame } = JSON.parse(readFileSync(path, 'utf8'))
  let text = "import type { Frame, Row, StatPanel, TablePanel, TimeSeriesPanel } from './types'\n"
  text += `export const frame: Frame = ${JSON.stringify(frame, null, 1)}\n`
  panels.forEach((panel, index) => {
    const type = panel.type === 'row' ? 'Row' : `${PANELS[panel.type]}Panel`
    text += `// ${JSON.stringify(panel.title)}\nexport const panel${index}: ${type} = ${JSON.stringify(panel, null, 1)}\n`
  })
  if (panels.length === 0) throw new Error(`${path} has no panels`)
  const ids = panels.map((panel) => panel.id)
  if (new Set(ids).size !== ids.length) throw new Error(`two panels of ${path} have the same id`)
  const file = join(here, basename(path).replace(/\.json$/, '.dashboard.ts'))
  writeFileSync(file, text)
  return file
})
if (files.length === 0) throw new Error('which dashboards?')
const compiler = join(here, 'node_modules/typescript/bin/tsc')
const options = ['--noEmit', '--strict', '--skipLibCheck', '--target', 'es2022', '--module', 'preserve', '--moduleResolution', 'bundler']
try {
  execFileSync(process.execPath, [compiler, ...options, join(here, 'mistakes.ts'), ...files], { cwd: here, stdio: 'inherit' })
} catch {
  process.exit(1)
}
console.log(`${files.length} dashboards are as Grafana's types have them`)
