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
    help="The folder to create.",
)
@click.option(
    "--data",
    type=PATH,
    metavar="FILE",
    help="Rows to compare on: Parquet, CSV, Arrow or .npy; by default an MLflow model's input example.",
)
@click.option(
    "--tolerance",
    default=TOLERANCE,
    show_default=True,
    type=click.FloatRange(0),
    help="Allowed difference from the library's own predictions; relative for numbers above 1.",
)
@click.option("--trust", is_flag=True, help="Allow loading a pickle, which runs the code in it.")
def convert(source: Path, output: Path, data: Path | None, tolerance: float, trust: bool) -> None:
    """Convert a model to ONNX and check that it predicts the same.

    The result is a folder to register.

    SOURCE is the folder of an MLflow model of scikit-learn, XGBoost, LightGBM, PyTorch, Keras or Spark ML,
    or a file: .pkl, .joblib, .skops, XGBoost's .json or .ubj, LightGBM's .txt, PyTorch's .pt2, .pt or .pth,
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
