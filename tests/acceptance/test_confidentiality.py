"""Whoever holds the brokers' disks learns no value, no name of a table and no name of a registry."""

from __future__ import annotations

import secrets
from pathlib import Path

from tests.harness.pipeline import MakePipeline


def test_no_byte_of_the_registry_is_in_any_file_of_either_cluster(make_pipeline: MakePipeline) -> None:
    table, column = f"deed_{secrets.token_hex(4)}", f"owner_{secrets.token_hex(4)}"
    value = f"Aino Tamm {secrets.token_hex(4)}"
    scan = secrets.token_bytes(64)
    pipeline = make_pipeline(
        f"CREATE TABLE public.{table} (id bigint PRIMARY KEY, {column} text, scan bytea);"
        f" ALTER TABLE public.{table} ALTER scan SET STORAGE EXTERNAL;"
    )
    pipeline.start_all()
    with pipeline.source() as connection:
        for number in range(200):
            connection.execute(
                f"INSERT INTO public.{table} VALUES (%s, %s, %s)".encode(), (number, value, scan * 100)
            )
        connection.execute(f"UPDATE public.{table} SET {column} = {column} || ' moved'".encode())
    pipeline.wait_level()
    secret = [word.encode() for word in (table, column, value, scan.hex(), pipeline.names["home"])] + [scan]
    sites = (pipeline.lab.home, pipeline.lab.site(pipeline.embassy))
    files = [
        file for site in sites for folder in site.kafka.log_dirs for file in folder.rglob("*") if file.is_file()
    ]
    assert any(file.suffix == ".log" and pipeline.topic in str(file) and file.stat().st_size for file in files)
    assert [(str(file), word) for file in files for word in secret if word in _content(file)] == []


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:  # a segment that the broker has just removed
        return b""
