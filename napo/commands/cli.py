"""The command line, `napo`: a function for each command; its work is done by a module of its own.

These modules are imported inside the functions, so that `napo --help` and a refused profile answer
at once.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from napo.config.profile import load_profile
from napo.errors import NapoError
from napo.workspace.files import fingerprint
from napo.workspace.folders import Workspace

app = typer.Typer(add_completion=False, rich_markup_mode=None)
label_studio = typer.Typer(rich_markup_mode=None)
app.add_typer(label_studio, name="label-studio", help="Label the samples in Label Studio.")

ProfileOption = Annotated[
    str,
    typer.Option("--profile", metavar="PROFILE", help="Its name, or the path of its YAML file."),
]
WorkspaceOption = Annotated[
    str,
    typer.Option(
        "--workspace",
        metavar="FOLDER",
        help="Folder of data/ and figures/ (default: checkout).",
    ),
]
CORES = os.cpu_count() or 1
CoresOption = Annotated[int, typer.Option(min=1, metavar="N", help="Jobs side by side.")]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", "-n", help="Write the plan to pipeline.log; run nothing.")
]
OnOption = Annotated[
    str,
    typer.Option(
        metavar="node|slurm|FOLDER",
        help="8 GPUs of this machine; a cluster; or your own folder with a config.yaml.",
    ),
]
PartitionOption = Annotated[
    str, typer.Option(metavar="NAME", help="SLURM's; empty: the cluster's default.")
]
AccountOption = Annotated[str, typer.Option(metavar="NAME", help="SLURM's; empty: your default.")]
HoursOption = Annotated[
    float, typer.Option(min=0, metavar="N", help="Time limit of SLURM's GPU jobs; 0: ours.")
]
JsonFile = Annotated[Path, typer.Argument(metavar="FILE", help="The JSON file.")]


@app.callback()
def napo() -> None:
    """Reproduce NaPO (CVPR 2025): data, training, benchmarks, figures and tables."""


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def reproduce(
    context: typer.Context,
    profile: ProfileOption = "tiny",
    workspace: WorkspaceOption = "",
    cores: CoresOption = CORES,
    seeds: Annotated[
        str, typer.Option(metavar="0,1,...", help="Seeds of training; empty: the profile's.")
    ] = "",
    tune: Annotated[
        str, typer.Option(metavar="full|lora|qlora", help="What is trained; empty: as the profile.")
    ] = "",
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Train the other robust losses, too.")
    ] = False,
    dry_run: DryRunOption = False,
    on: OnOption = "",
    partition: PartitionOption = "",
    account: AccountOption = "",
    hours: HoursOption = 0,
) -> int:
    """Run every notebook, from data to tables and figures.

    Further options go to Snakemake, such as --until train.

    Example: napo reproduce --profile tiny --cores 2
    """
    from napo.commands import pipeline

    refuse_config(context, "--seeds or --tune")
    return pipeline.run(
        pipeline.Reproduction(seeds, tune, baselines), profile, workspace, cores,
        dry_run=dry_run, on=on, partition=partition, account=account, hours=hours,
        extra=context.args,
    )  # fmt: skip


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def study(
    context: typer.Context,
    profile: ProfileOption = "tiny",
    workspace: WorkspaceOption = "",
    cores: CoresOption = CORES,
    grid: Annotated[
        str, typer.Option(metavar="default|full", help="Which cells; empty: as the profile.")
    ] = "",
    seeds: Annotated[
        str, typer.Option(metavar="0,1,...", help="Seeds of the cells; empty: the profile's.")
    ] = "",
    dry_run: DryRunOption = False,
    on: OnOption = "",
    partition: PartitionOption = "",
    account: AccountOption = "",
    hours: HoursOption = 0,
) -> int:
    """Run the noise study: train losses on noise of a known rate, compare them (notebook 08).

    Each cell is kept, and a stopped study goes on. Further options go to Snakemake.

    Example: napo study --profile tiny --cores 2
    """
    from napo.commands import pipeline
    from napo.commands.study import NoiseStudy

    refuse_config(context, "--grid or --seeds")
    return pipeline.run(
        NoiseStudy(grid, seeds), profile, workspace, cores,
        dry_run=dry_run, on=on, partition=partition, account=account, hours=hours,
        extra=context.args,
    )  # fmt: skip


def refuse_config(context: typer.Context, options: str) -> None:
    """Refuse Snakemake's own config: the Snakefile gets it from a command's options.

    Raises:
        typer.BadParameter: naming these options.
    """
    if {word.partition("=")[0] for word in context.args} & {"-C", "--config", "--configfile"}:
        raise typer.BadParameter(f"--config is Snakemake's; give {options}.")


@app.command("study-pairs", hidden=True)
def study_pairs(profile: ProfileOption, workspace: WorkspaceOption = "") -> None:
    """Make the pairs of the noise study: a job of `napo study`."""
    load_profile(profile)
    from napo.stages.session import open_session
    from napo.stages.study import make_pairs

    make_pairs(open_session(profile, workspace))


@app.command("study-job", hidden=True)
def study_job(
    job: Annotated[str, typer.Argument(metavar="BUDGET/NOISE/SEED")],
    losses: Annotated[str, typer.Option(metavar="dpo,napo,...", help="What to train.")],
    profile: ProfileOption,
    workspace: WorkspaceOption = "",
) -> int:
    """Train the cells of one noise and seed of the noise study: a job of `napo study`.

    Example: napo study-job long/flip-0.4/seed-0 --losses dpo,napo --profile tiny
    """
    load_profile(profile)
    from napo.commands.study import train_job
    from napo.stages.session import open_session

    return train_job(open_session(profile, workspace), job, losses)


@app.command()
def fetch(
    profile: ProfileOption = "tiny",
    workspace: WorkspaceOption = "",
    yes: Annotated[bool, typer.Option("--yes", help="Download.")] = False,
    only: Annotated[str, typer.Option(metavar="NAME", help="Fetch only this item.")] = "",
) -> None:
    """Show the downloads a profile needs, or make them with --yes.

    Example: napo fetch --profile llava-1.5-7b --yes
    """
    from napo.data.fetch import fetch

    settings = load_profile(profile)
    fetch(settings, Workspace.open(workspace, settings.name), yes=yes, only=only)


@app.command()
def check(
    profile: ProfileOption = "tiny",
    workspace: WorkspaceOption = "",
    quick: Annotated[
        bool, typer.Option("--quick", help="Decode every hundredth image only.")
    ] = False,
) -> None:
    """Find what is missing or wrong before the first GPU hour.

    Example: napo check --profile llava-1.5-7b
    """
    load_profile(profile)  # a wrong one is refused before the slow imports
    from napo.commands import check
    from napo.stages.session import open_session

    check.report(open_session(profile, workspace, write=False), quick)


@app.command()
def figures(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[fig3|fig4]...", help="Default: both.")
    ] = None,
    profile: ProfileOption = "tiny",
    workspace: WorkspaceOption = "",
) -> None:
    """Draw Figures 3 and 4 again, from the loss and the stored margins.

    Example: napo figures fig4 --profile tiny
    """
    settings = load_profile(profile)
    from napo.results.figures.redraw import redraw
    from napo.workspace import provenance

    provenance.set_session(settings.name, fingerprint(settings.model_dump()))
    print(*redraw(Workspace.open(workspace, settings.name).figures, names or ()), sep="\n")


@app.command()
def verify(profile: ProfileOption = "tiny", workspace: WorkspaceOption = "") -> int:
    """Hash all finished files again and name what changed.

    Example: napo verify --profile tiny
    """
    settings = load_profile(profile)
    from napo.commands import verify
    from napo.stages.session import Session

    return verify.report(Session(settings, Workspace.open(workspace, settings.name, write=False)))


@app.command()
def budget(
    profile: ProfileOption,
    gpus: Annotated[int, typer.Option(metavar="N", help="Number of GPUs.")] = 8,
    gpu_memory: Annotated[
        float, typer.Option(metavar="GB", help="Memory of one GPU, 10^9 bytes.")
    ] = 80,
    utilisation: Annotated[
        float, typer.Option(metavar="SHARE", help="Fraction of the peak FLOP/s that you expect.")
    ] = 0.4,
    tflops: Annotated[
        float, typer.Option(metavar="TFLOP/S", help="Peak of one GPU (A100: 312).")
    ] = 312,
    question_tokens: Annotated[int, typer.Option(metavar="N", help="Mean length.")] = 40,
    response_tokens: Annotated[int, typer.Option(metavar="N", help="Mean length.")] = 90,
) -> None:
    """Estimate memory, hours and disk of a training run before GPUs are booked.

    Example: napo budget --profile llava-1.5-7b --gpus 8 --gpu-memory 80
    """
    load_profile(profile)
    from napo.commands import budget

    lengths = {"question_tokens": question_tokens, "response_tokens": response_tokens}
    rates = {"utilisation": utilisation, "tflops": tflops}
    print(budget.report(profile, gpus, gpu_memory, **rates, **lengths))


@label_studio.command("export")
def export_tasks(
    file: JsonFile, profile: ProfileOption = "tiny", workspace: WorkspaceOption = ""
) -> None:
    """Write the samples as tasks of Label Studio, and its labelling config beside them.

    Example: napo label-studio export samples.json --profile tiny
    """
    load_profile(profile)
    from napo.commands import label_studio
    from napo.stages.session import open_session

    count = label_studio.export_samples(open_session(profile, workspace), file)
    print(f"{count} tasks in {file}, labelling config in {file.with_suffix('.xml')}")


@label_studio.command("import")
def import_labels(
    file: JsonFile,
    profile: ProfileOption = "tiny",
    workspace: WorkspaceOption = "",
    annotator: Annotated[
        str, typer.Option(metavar="NAME", help="The annotator; empty: the email in the export.")
    ] = "",
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace labels that differ here.")
    ] = False,
) -> None:
    """Read the labels of a JSON export of Label Studio.

    Example: napo label-studio import project-1.json --profile tiny
    """
    load_profile(profile)
    from napo.commands import label_studio
    from napo.stages.session import open_session

    session = open_session(profile, workspace)
    labels = label_studio.import_labels(session, file, annotator, replace)
    people = labels["annotator"].value_counts().items()
    names = ", ".join(f"{name} {count}" for name, count in people)
    print(f"{len(labels)} labels imported ({names}).")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the words after `napo`; None: those of this process.

    Returns:
        0, or 1 for a NapoError, 2 for a wrong option, 130 for Ctrl-C, 141 for a closed pipe.
    """
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        with typer.main.get_command(app).make_context("napo", words) as context:
            code = context.command.invoke(context) or 0
        sys.stdout.flush()
        return code
    except typer.Exit as end:  # of --help, too
        return end.exit_code
    except typer.TyperException as error:
        print(f"napo: {error.format_message()} (see napo --help)", file=sys.stderr)
        return error.exit_code
    except NapoError as error:
        print(f"napo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted; run the same command to go on.", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:  # the reader has ended, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
