"""Submitted by `test_services.py`: squares 100 rows on every node and prints one line of JSON."""

import json
import os
import time

import ray

ROWS = 100


def square(row: dict[str, int]) -> dict[str, object]:
    time.sleep(0.02)
    row_id = int(row["id"])
    return {
        "square": row_id**2,
        "node": ray.get_runtime_context().get_node_id(),
        "endpoint": os.environ.get("AWS_ENDPOINT_URL", ""),
        "tracking_uri": os.environ.get("MLFLOW_TRACKING_URI", ""),
    }


if __name__ == "__main__":
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # Two CPUs a task: each node has room for one, so no node can take them all.
    items = [{"id": row_id} for row_id in range(ROWS)]
    rows = ray.data.from_items(items, override_num_blocks=6).map(square, num_cpus=2)
    squared = rows.take_all()
    print(
        json.dumps(
            {
                "sum": sum(row["square"] for row in squared),
                "rows": len(squared),
                "nodes": len({row["node"] for row in squared}),
                "endpoints": sorted({row["endpoint"] for row in squared}),
                "tracking_uris": sorted({row["tracking_uri"] for row in squared}),
            }
        )
    )
