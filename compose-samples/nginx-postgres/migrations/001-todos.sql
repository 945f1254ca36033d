CREATE TABLE todos (
    id serial PRIMARY KEY,
    what text NOT NULL
);
