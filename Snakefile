# The stages, for `snakemake --cores all results`: the commands of dvc.yaml over the same files.
# Add `--config profile=paper -- results` for the published scale.
from snakemake.utils import validate

from workflow.wiring import code, tracked


configfile: "params.yaml"


validate(config, "workflow/schemas/params.schema.json", set_default=False)

REPORT = [
    "comparison.png",
    "curves.png",
    "index.html",
    "results.csv",
    "results.md",
    "results.tex",
]


def packed(wildcards):
    dataset = config["experiments"][wildcards.experiment]["dataset"]
    return f"data/{wildcards.profile}/packed/{dataset}/manifest.json"


wildcard_constraints:
    profile=config["profile"],
    dataset="|".join(config["datasets"]),
    weights="|".join(config["weights"]),
    experiment="|".join(config["experiments"]),


rule all:
    default_target: True
    input:
        expand("reports/{profile}/{file}", profile=config["profile"], file=REPORT),


rule results:
    input:
        rules.all.input,


rule fetch:
    input:
        code("fetch"),
    output:
        "data/{profile}/raw/{dataset}/manifest.json",
    threads: workflow.cores
    params:
        tracked=lambda w: tracked("fetch", config, w.dataset),
    shell:
        "exec python -m workflow.fetch --profile {wildcards.profile} --name {wildcards.dataset}"
        " --out {output}"


rule weights:
    input:
        code("weights"),
    output:
        "data/{profile}/weights/{weights}/manifest.json",
    params:
        tracked=lambda w: tracked("weights", config, w.weights),
    shell:
        "exec python -m workflow.fetch --profile {wildcards.profile} --name {wildcards.weights}"
        " --out {output}"


rule pack:
    input:
        code("pack"),
        raw="data/{profile}/raw/{dataset}/manifest.json",
    output:
        "data/{profile}/packed/{dataset}/manifest.json",
    threads: workflow.cores
    params:
        tracked=lambda w: tracked("pack", config, w.dataset),
        out=subpath(output[0], parent=True),
    shell:
        "exec python -m workflow.pack --profile {wildcards.profile} --dataset {wildcards.dataset}"
        " --raw {input.raw} --out {params.out}"


rule survey:
    input:
        code("survey"),
        data="data/{profile}/packed/{dataset}/manifest.json",
    output:
        "reports/{profile}/datasets/{dataset}/cameras.png",
        "reports/{profile}/datasets/{dataset}/scenes.png",
        "reports/{profile}/datasets/{dataset}/statistics.json",
    params:
        tracked=lambda w: tracked("survey", config, w.dataset),
        data=subpath(input.data, parent=True),
        out=subpath(output[0], parent=True),
    shell:
        "exec python -m workflow.survey --profile {wildcards.profile}"
        " --dataset {wildcards.dataset} --data {params.data} --out {params.out}"


rule train:
    input:
        code("train"),
        data=packed,
    output:
        "outputs/{profile}/{experiment}/history.csv",
        "outputs/{profile}/{experiment}/model.safetensors",
        "outputs/{profile}/{experiment}/training.json",
    threads: workflow.cores
    params:
        tracked=lambda w: tracked("train", config, w.experiment),
        data=subpath(input.data, parent=True),
        out=subpath(output[0], parent=True),
    shell:
        "exec python -m workflow.train --profile {wildcards.profile}"
        " --experiment {wildcards.experiment} --data {params.data} --out {params.out}"


rule evaluate:
    input:
        code("evaluate"),
        data=packed,
        model="outputs/{profile}/{experiment}/model.safetensors",
        lpips="data/{profile}/weights/lpips_vgg/manifest.json",
        lpips_alex="data/{profile}/weights/lpips_alex/manifest.json",
    output:
        "outputs/{profile}/{experiment}/comparison.png",
        "outputs/{profile}/{experiment}/costs.json",
        "outputs/{profile}/{experiment}/metrics.json",
        "outputs/{profile}/{experiment}/scenes.csv",
    threads: workflow.cores
    params:
        tracked=lambda w: tracked("evaluate", config, w.experiment),
        data=subpath(input.data, parent=True),
        out=subpath(output[0], parent=True),
    shell:
        "exec python -m workflow.evaluate --profile {wildcards.profile}"
        " --experiment {wildcards.experiment} --data {params.data} --model {input.model}"
        " --lpips {input.lpips} --lpips-alex {input.lpips_alex} --out {params.out}"


rule render:
    input:
        code("render"),
        data=packed,
        model="outputs/{profile}/{experiment}/model.safetensors",
    output:
        "outputs/{profile}/{experiment}/video.mp4",
    threads: workflow.cores
    params:
        tracked=lambda w: tracked("render", config, w.experiment),
        data=subpath(input.data, parent=True),
    shell:
        "exec python -m workflow.render --profile {wildcards.profile}"
        " --experiment {wildcards.experiment} --data {params.data} --model {input.model}"
        " --out {output}"


rule tabulate:
    input:
        code("tabulate"),
        expand(rules.train.output, experiment=config["experiments"], allow_missing=True),
        expand(
            rules.evaluate.output, experiment=config["experiments"], allow_missing=True
        ),
        expand(
            rules.render.output, experiment=config["experiments"], allow_missing=True
        ),
        expand(rules.survey.output, dataset=config["datasets"], allow_missing=True),
    output:
        expand("reports/{{profile}}/{file}", file=REPORT),
    params:
        tracked=tracked("tabulate", config),
        out=subpath(output[0], parent=True),
    shell:
        "exec python -m workflow.tabulate --profile {wildcards.profile}"
        " --outputs outputs/{wildcards.profile}"
        " --surveys reports/{wildcards.profile}/datasets --out {params.out}"
