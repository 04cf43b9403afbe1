"""`base` is the embedded default; `production` adds what the open network asks for; `test` only makes things faster."""
