"""Alembic scripts; applied by rvc_batch.db.migrate."""
