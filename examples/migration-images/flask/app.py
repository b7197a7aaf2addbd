"""The service: its tables, and where its database is."""

from flask import Flask
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy

app = Flask(__name__)
# libpq finds host, login and password by PGSERVICEFILE and PGPASSFILE.
app.config["SQLALCHEMY_DATABASE_URI"] = "postgresql+psycopg2:///?service=servicedb"

db = SQLAlchemy(app)
Migrate(app, db)


class Profile(db.Model):
    """Somebody who may have certificates."""

    id = db.Column(db.Integer, primary_key=True)
    email = db.Column(db.String(255), nullable=False, unique=True)
    display_name = db.Column(db.String(100))
