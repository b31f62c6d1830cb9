"""The jobs of a running pipeline: planned, running, finished, failed; and the time left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from napo.commands import slurm
from napo.progress import duration

# Seconds of one job of each rule at the tiny scale on two cores: the first guess of the estimate,
# corrected by the seconds that this run's jobs took.
USUAL_SECONDS = {
    "icon_world": 40,
    "build_biased_data": 25,
    "annotate_noise": 10,
    "loss_curves": 10,
    "margin_distributions": 12,
    "train": 60,
    "evaluate": 100,
    "evaluate_base": 40,
    "evaluate_decoding": 60,
    "report": 25,
    "study_pairs": 40,
    "study_cells": 45,  # of one cell
    "study_summary": 25,
}

GOALS = ("all", "study")  # rules of the Snakefile that list files and run nothing


@dataclass
class Job:
    """A job that has started, in seconds; `variant` is what it trains or evaluates, or empty."""

    rule: str
    variant: str
    started: float

    @property
    def name(self) -> str:
        """The rule, with its variant."""
        return f"{self.rule} {self.variant}".strip()


@dataclass
class Jobs:
    """What Snakemake's events say about a pipeline with `cores` jobs side by side.

    A job counts as one part, or as many as `sizes` says: a job of the noise study trains several
    cells. `partition` is that of SLURM's jobs, empty for the cluster's default.
    """

    cores: int
    partition: str = ""
    sizes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # rule -> variant -> parts
    planned: dict[str, int] = field(default_factory=dict)  # rule -> number of parts
    running: dict[int, Job] = field(default_factory=dict)  # Snakemake's id -> job
    seconds: dict[str, list[float]] = field(default_factory=dict)  # rule -> of each finished part
    # Executed notebook of each failed job -> why SLURM refused or ended it, if SLURM did.
    failed: dict[str, str] = field(default_factory=dict)
    slurm_log: str = ""  # of the first failed job
    error: str = ""  # why nothing was planned: a sentence of the Snakefile or of Snakemake

    def update(self, event: Mapping[str, Any], now: float) -> str:
        """Take an event of `napo.commands.snakemake_events` at `now`, in seconds.

        Returns:
            The line to show, or an empty text.
        """
        match event:
            case {"event": "run_info", "stats": stats}:
                self.planned = {
                    rule: sum(self.sizes.get(rule, {}).values()) or stats[rule]
                    for rule in stats
                    if rule not in (*GOALS, "total")
                }
            case {"event": "job_info", "jobid": number, "rule_name": rule} if rule not in GOALS:
                wildcards = event["wildcards"]
                variant = wildcards.get("variant") or wildcards.get("job", "")
                self.running[number] = Job(rule, variant, now)
            case {"event": "job_finished", "job_id": number} if number in self.running:
                job = self.running.pop(number)
                parts = self.parts(job)
                taken = self.seconds.setdefault(job.rule, [])
                taken += [(now - job.started) / parts] * parts
                done, planned = sum(map(len, self.seconds.values())), sum(self.planned.values())
                line = f"[{done}/{planned}] {job.name} done in {duration(now - job.started)}"
                left = f"; about {duration(self.remaining(now))} left" if done < planned else ""
                return line + left
            case {"event": "submitted", "job_id": number, "external": external}:
                partition = self.partition or "the default partition"
                return f"{self.running[number].name} submitted to {partition} as job {external}"
            case {"event": "job_error", "rule_name": rule, "log": [log, *slurm_logs]}:
                if log not in self.failed:  # Snakemake repeats it when it ends
                    self.slurm_log = self.slurm_log or "".join(slurm_logs)
                    number = event["aux"].get("external_jobid", "")
                    self.failed[log] = slurm.cause(event["rule_msg"] or "", number)
                    return f"{rule} failed; see {log}"
            case {"event": "error", "sentence": sentence}:
                self.error = sentence
        return ""

    def parts(self, job: Job) -> int:
        """How many parts a job has."""
        return self.sizes.get(job.rule, {}).get(job.variant, 1)

    def remaining(self, now: float) -> float:
        """Seconds until the pipeline ends, if its jobs keep their pace."""
        usual = {rule: USUAL_SECONDS.get(rule, 30) for rule in {*self.planned, *self.seconds}}
        expected = sum(usual[rule] * len(taken) for rule, taken in self.seconds.items())
        pace = sum(map(sum, self.seconds.values())) / max(1e-9, expected)
        work = 0.0
        for rule, count in self.planned.items():
            taken = self.seconds.get(rule, [])
            mean = sum(taken) / len(taken) if taken else usual[rule] * pace
            begun = [job for job in self.running.values() if job.rule == rule]
            spent = sum(min(mean * self.parts(job), now - job.started) for job in begun)
            work += mean * (count - len(taken)) - spent
        return max(0.0, work) / self.cores
