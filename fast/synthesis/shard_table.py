"""`manifest.parquet`: the records of all shards in one table, for a set whose lines of JSON nobody reads one by one."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fast.synthesis.stores import Store

# A column each; what else a record holds is in `record`, the line of JSON.
COLUMNS = {
    "index": "int64", "shard": "string", "image": "string", "mask": "string", "type": "string",
    "normal_source": "string", "mask_source": "string", "prompt": "string", "pair_seed": "int64",
    "defect_pixels": "int64", "seconds": "float64", "counterfeit": "bool_", "rejected": "string", "record": "string",
}  # fmt: skip


def write_table(store: Store, name: str, shards: Iterable[list[dict[str, Any]]]) -> bool:
    """Write the records of shards as a Parquet file, a row group for each shard, one in memory at a time. Returns False
    where pyarrow is not installed, and says so. Raises `UserError`."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        print(
            f"note: {name} needs pyarrow: pip install '.[shards]' and give the same command again; the records are in "
            "the .jsonl beside each shard",
            flush=True,
        )
        return False
    schema = pa.schema([(column, getattr(pa, kind)()) for column, kind in COLUMNS.items()])
    with TemporaryDirectory() as aside:
        local = Path(aside) / name
        with pq.ParquetWriter(local, schema, compression="zstd") as writer:
            for records in shards:
                rows = [_row(record) for record in records]
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
        store.write(name, local)
    return True


def _row(record: dict[str, Any]) -> dict[str, Any]:
    fixed = {"counterfeit": bool(record.get("counterfeit")), "record": json.dumps(record)}
    return {**{column: record.get(column) for column in COLUMNS}, **fixed}
