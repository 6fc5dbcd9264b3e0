"""The command that makes a bundle of another library's model."""

from __future__ import annotations

from pathlib import Path

import click

from driftline.cli.shared import PATH, stderr

TOLERANCE = 1e-5


@click.command()
@click.argument("source", type=PATH)
@click.option(
    "-o",
    "--output",
    required=True,
    type=PATH,
    metavar="BUNDLE",
    help="A folder to make.",
)
@click.option(
    "--data",
    type=PATH,
    metavar="FILE",
    help="Rows to compare on: Parquet, CSV, Arrow or .npy; an MLflow model's input example if not given.",
)
@click.option(
    "--tolerance",
    default=TOLERANCE,
    show_default=True,
    type=click.FloatRange(0),
    help="The difference to the library's own predictions that is allowed; of numbers above 1, relative.",
)
@click.option("--trust", is_flag=True, help="Load a pickle, which runs whatever code is in it.")
def convert(source: Path, output: Path, data: Path | None, tolerance: float, trust: bool) -> None:
    """Convert a model to ONNX, check that it predicts the same, and make a folder to register.

    SOURCE is an MLflow model's folder, of scikit-learn, XGBoost, LightGBM, PyTorch, Keras or Spark ML, or
    a file: .pkl, .joblib, .skops, XGBoost's .json or .ubj, LightGBM's .txt, PyTorch's .pt2, .pt or .pth,
    Keras' .keras.
    """
    from driftline.convert.convert import convert as run

    with stderr().status("") as status:
        report = run(source, output, data, tolerance, trust, status.update)
    click.echo(
        f"the {report.kind} model is in {output}; compared with its own predictions on {report.rows} rows: "
        f"{report.difference}"
    )
    click.echo(f"`driftline register {output} --name NAME` makes a version of it")
