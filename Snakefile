# The stages, for `snakemake --cores all results`: the commands of dvc.yaml over the same files.
# Add `--config profile=paper -- results` for the published scale.
import sys
from pathlib import Path

from srt.common.errors import UserError
from srt.data.raw.layouts import LAYOUTS
from workflow.common.jobs import has_gpu, plan_jobs

# What each job depends on besides its input files: the values that it reads and its code. A wrong
# value in params.yaml stops here, before anything runs.
try:
    JOBS = plan_jobs(Path("params.yaml"), config.get("profile"))
except UserError as error:
    sys.exit(f"error: {error}")


configfile: "params.yaml"


report: "workflow/captions/pipeline.rst"


REPORT = {  # file: its kind in `snakemake --report`, where it is shown
    "classes.png": "quality by class",
    "compute.png": "quality against compute",
    "curves.png": "learning curves",
    "index.html": "everything on one page",
    "reproduction.csv": "published figures and ours",
    "reproduction.md": None,
    "reproduction.tex": "published figures and ours, for LaTeX",
    "results.csv": "raw figures",
    "results.md": None,
    "results.tex": "table for LaTeX",
    "teaser.gif": None,
}

HOUR, DAY = 60, 24 * 60  # minutes, as `runtime` counts

# On GPUs one job has all of them at a time, unless workflow/common/gpus.py shares them out. Without
# a GPU, jobs run side by side, each on one core: small matrix products gain little from more cores.
GPU = int(has_gpu())


def growing(amount):
    """Return a resource that grows with every try of a job (a profile's `retries`)."""
    return lambda wildcards, attempt: amount * attempt


def is_generated(wildcards):
    """Return whether the scenes of a dataset are rendered while they are packed."""
    layout = JOBS["pack", wildcards.dataset].values["dataset"]["layout"]
    return LAYOUTS[layout].renders_when_packed


def cores(wildcards):
    """Return one core for a small synthetic dataset, many for a large one."""
    source = JOBS["pack", wildcards.dataset].values["dataset"]["source"]
    return 1 if source == "synthetic" and not is_generated(wildcards) else 16


def gpus_for_packing(wildcards):
    """Return the GPUs that render the scenes of a generated dataset."""
    return GPU if is_generated(wildcards) else 0


def add_to_report(path, category, kind, **labels):
    """Return an output that `snakemake --report` shows, with the caption of its kind."""
    caption = f"workflow/captions/{category.lower()}.rst"
    return report(
        path, caption=caption, category=category, labels={"shows": kind, **labels}
    )


def packed(wildcards):
    dataset = config["experiments"][wildcards.experiment]["dataset"]
    return f"data/{wildcards.profile}/packed/{dataset}/manifest.json"


wildcard_constraints:
    profile=config["profile"],
    dataset="|".join(config["datasets"]),
    weights="|".join(config["weights"]),
    experiment="|".join(config["experiments"]),


rule fetch:
    output:
        "data/{profile}/raw/{dataset}/manifest.json",
    log:
        "logs/{profile}/fetch/{dataset}.log",
    benchmark:
        "logs/{profile}/fetch/{dataset}.tsv"
    threads: cores
    resources:
        mem_mb=growing(8000),
        runtime=growing(2 * DAY),
    params:
        job=lambda w: JOBS["fetch", w.dataset].describe(),
    shell:
        "exec python -m workflow.fetch --profile {wildcards.profile} --name {wildcards.dataset}"
        " --out {output} >> {log} 2>&1"


rule weights:
    output:
        "data/{profile}/weights/{weights}/manifest.json",
    log:
        "logs/{profile}/weights/{weights}.log",
    benchmark:
        "logs/{profile}/weights/{weights}.tsv"
    resources:
        mem_mb=growing(2000),
        runtime=growing(HOUR),
    params:
        job=lambda w: JOBS["weights", w.weights].describe(),
    shell:
        "exec python -m workflow.fetch --profile {wildcards.profile} --name {wildcards.weights}"
        " --out {output} >> {log} 2>&1"


rule pack:
    input:
        raw="data/{profile}/raw/{dataset}/manifest.json",
    output:
        "data/{profile}/packed/{dataset}/manifest.json",
    log:
        "logs/{profile}/pack/{dataset}.log",
    benchmark:
        "logs/{profile}/pack/{dataset}.tsv"
    threads: cores
    resources:
        gpu=gpus_for_packing,
        mem_mb=growing(16000),
        runtime=growing(DAY),
    params:
        job=lambda w: JOBS["pack", w.dataset].describe(),
        out=subpath(output[0], parent=True),
    shell:
        "exec python -m workflow.pack --profile {wildcards.profile} --dataset {wildcards.dataset}"
        " --raw {input.raw} --out {params.out} >> {log} 2>&1"


rule survey:
    input:
        data="data/{profile}/packed/{dataset}/manifest.json",
    output:
        add_to_report(
            "reports/{profile}/datasets/{dataset}/cameras.png",
            "Datasets",
            "cameras",
            dataset="{dataset}",
        ),
        add_to_report(
            "reports/{profile}/datasets/{dataset}/scenes.png",
            "Datasets",
            "scenes",
            dataset="{dataset}",
        ),
        "reports/{profile}/datasets/{dataset}/statistics.json",
    log:
        "logs/{profile}/survey/{dataset}.log",
    benchmark:
        "logs/{profile}/survey/{dataset}.tsv"
    resources:
        mem_mb=growing(8000),
        runtime=growing(HOUR),
    params:
        job=lambda w: JOBS["survey", w.dataset].describe(),
        data=subpath(input.data, parent=True),
        out=subpath(output[0], parent=True),
    shell:
        "exec python -m workflow.survey --profile {wildcards.profile}"
        " --dataset {wildcards.dataset} --data {params.data} --out {params.out} >> {log} 2>&1"


rule train:
    input:
        data=packed,
    output:
        "outputs/{profile}/{experiment}/history.csv",
        "outputs/{profile}/{experiment}/model.safetensors",
        "outputs/{profile}/{experiment}/training.json",
    log:
        "logs/{profile}/train/{experiment}.log",
    benchmark:
        "logs/{profile}/train/{experiment}.tsv"
    resources:
        gpu=GPU,
        mem_mb=growing(64000),
        runtime=growing(DAY),
    params:
        job=lambda w: JOBS["train", w.experiment].describe(),
        data=subpath(input.data, parent=True),
        out=subpath(output[0], parent=True),
    shell:
        "exec python -m workflow.train --profile {wildcards.profile}"
        " --experiment {wildcards.experiment} --data {params.data} --out {params.out} >> {log} 2>&1"


rule evaluate:
    input:
        data=packed,
        model="outputs/{profile}/{experiment}/model.safetensors",
        lpips="data/{profile}/weights/lpips_vgg/manifest.json",
        lpips_alex="data/{profile}/weights/lpips_alex/manifest.json",
    output:
        add_to_report(
            "outputs/{profile}/{experiment}/comparison.png",
            "Comparisons",
            "test scenes",
            experiment="{experiment}",
        ),
        add_to_report(
            "outputs/{profile}/{experiment}/extremes.png",
            "Comparisons",
            "best, median and worst",
            experiment="{experiment}",
        ),
        "outputs/{profile}/{experiment}/costs.json",
        "outputs/{profile}/{experiment}/metrics.json",
        "outputs/{profile}/{experiment}/scenes.csv",
    log:
        "logs/{profile}/evaluate/{experiment}.log",
    benchmark:
        "logs/{profile}/evaluate/{experiment}.tsv"
    resources:
        gpu=GPU,
        mem_mb=growing(32000),
        runtime=growing(4 * HOUR),
    params:
        job=lambda w: JOBS["evaluate", w.experiment].describe(),
        data=subpath(input.data, parent=True),
        out=subpath(output[0], parent=True),
    shell:
        "exec python -m workflow.evaluate --profile {wildcards.profile}"
        " --experiment {wildcards.experiment} --data {params.data} --model {input.model}"
        " --lpips {input.lpips} --lpips-alex {input.lpips_alex} --out {params.out} >> {log} 2>&1"


rule render:
    input:
        data=packed,
        model="outputs/{profile}/{experiment}/model.safetensors",
    output:
        add_to_report(
            "outputs/{profile}/{experiment}/video.mp4",
            "Videos",
            "camera motion",
            experiment="{experiment}",
        ),
    log:
        "logs/{profile}/render/{experiment}.log",
    benchmark:
        "logs/{profile}/render/{experiment}.tsv"
    resources:
        gpu=GPU,
        mem_mb=growing(32000),
        runtime=growing(4 * HOUR),
    params:
        job=lambda w: JOBS["render", w.experiment].describe(),
        data=subpath(input.data, parent=True),
    shell:
        "exec python -m workflow.render --profile {wildcards.profile}"
        " --experiment {wildcards.experiment} --data {params.data} --model {input.model}"
        " --out {output} >> {log} 2>&1"


rule tabulate:
    input:
        expand(rules.train.output, experiment=config["experiments"], allow_missing=True),
        expand(
            rules.evaluate.output, experiment=config["experiments"], allow_missing=True
        ),
        expand(
            rules.render.output, experiment=config["experiments"], allow_missing=True
        ),
        expand(rules.survey.output, dataset=config["datasets"], allow_missing=True),
        few_cameras="reports/camera_overfitting",
        performance="reports/performance/training.json",
    output:
        directory("reports/{profile}/runs"),
        [
            (
                add_to_report(f"reports/{{profile}}/{file}", "Tables", kind)
                if kind
                else f"reports/{{profile}}/{file}"
            )
            for file, kind in REPORT.items()
        ],
    log:
        "logs/{profile}/tabulate.log",
    benchmark:
        "logs/{profile}/tabulate.tsv"
    resources:
        mem_mb=growing(8000),
        runtime=growing(HOUR),
    params:
        job=JOBS["tabulate", ""].describe(),
        out=subpath(output[0], parent=True),
    shell:
        "exec python -m workflow.tabulate --profile {wildcards.profile}"
        " --outputs outputs/{wildcards.profile}"
        " --surveys reports/{wildcards.profile}/datasets --performance {input.performance}"
        " --few-cameras {input.few_cameras} --out {params.out} >> {log} 2>&1"


def made(rule, **names):
    """Return the outputs of all jobs of a rule."""
    return expand(rule.output, profile=config["profile"], **names)


rule all:
    default_target: True
    input:  # also what the report was made from: a job that failed has deleted its outputs, and for
        # the report alone, which is older, Snakemake would not make them again
        made(rules.fetch, dataset=config["datasets"]),
        made(rules.weights, weights=config["weights"]),
        made(rules.pack, dataset=config["datasets"]),
        made(rules.survey, dataset=config["datasets"]),
        made(rules.train, experiment=config["experiments"]),
        made(rules.evaluate, experiment=config["experiments"]),
        made(rules.render, experiment=config["experiments"]),
        made(rules.tabulate),


rule results:
    input:
        rules.all.input,
