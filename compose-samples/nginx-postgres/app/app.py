"""A to-do list over HTTP: GET and POST /todos, DELETE /todos/ID. Each answer tells which replica gave it."""

import os
import socket

import flask
import psycopg2

app = flask.Flask(__name__)


def query(sql, *values):
    connection = psycopg2.connect(os.environ["DATABASE_URL"], connect_timeout=3)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(sql, values)
            return cursor.fetchall()
    finally:
        connection.close()


@app.after_request
def name_the_replica(response):
    response.headers["X-Served-By"] = socket.gethostname()
    return response


@app.get("/healthz")
def healthz():
    query("SELECT 1 FROM schema_migrations LIMIT 1")
    return "ok\n"


@app.get("/todos")
def todos():
    rows = query("SELECT id, what, done FROM todos ORDER BY id")
    return flask.jsonify([{"id": number, "what": what, "done": done} for number, what, done in rows])


@app.post("/todos")
def add():
    what = (flask.request.get_json(silent=True) or {}).get("what")
    if not isinstance(what, str) or not what.strip():
        return {"error": "`what` is missing"}, 400
    [(number,)] = query("INSERT INTO todos (what) VALUES (%s) RETURNING id", what.strip())
    return {"id": number, "what": what.strip(), "done": False}, 201


@app.delete("/todos/<int:number>")
def remove(number):
    if not query("DELETE FROM todos WHERE id = %s RETURNING id", number):
        return {"error": f"there is no todo {number}"}, 404
    return "", 204


@app.get("/")
def page():
    rows = query("SELECT what FROM todos ORDER BY id")
    return flask.render_template_string(
        "<!doctype html><title>To do</title><h1>To do</h1><ul>{% for row in rows %}<li>{{ row[0] }}</li>{% endfor %}"
        "</ul><p>served by {{ me }}</p>", rows=rows, me=socket.gethostname())
