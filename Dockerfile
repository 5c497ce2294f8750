# Two images from one file, because NeMo and vLLM pin different transformers, numpy and protobuf:
#   docker build --target train   -t nemo-sspo:train   .
#   docker build --target rollout -t nemo-sspo:rollout .
# The base of `train` is NGC's NeMo container: torch 2.9, Transformer Engine 2.9 and Apex built for Hopper. Where the
# engine does not find it by this name, prefix NGC's registry: --build-arg TRAIN_IMAGE=<registry>/nvidia/nemo:25.11
# What a base has compiled is never replaced: its versions are constraints, so that a conflict ends the build.
# Started as another user (`--user`), give a HOME that user may write: Triton and Hugging Face keep caches there.
ARG TRAIN_IMAGE=nvidia/nemo:25.11
ARG ROLLOUT_IMAGE=vllm/vllm-openai:v0.32.0

FROM ${TRAIN_IMAGE} AS train
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# NGC has torch round fp32 products to TF32: precision=fp32 would be none.
ENV TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=0
WORKDIR /opt/nemo-sspo
# The pair this project is tested with, in place of the container's. A checkout on PYTHONPATH would hide it: look.
RUN python -m pip install --no-cache-dir --no-deps nemo-toolkit==2.7.3 megatron-core==0.15.3 \
    && python -c 'from importlib import metadata, util; assert all( \
    util.find_spec(name).origin == str(metadata.distribution(project).locate_file(f"{folder}/__init__.py")) \
    for project, name, folder in (("megatron-core", "megatron.core", "megatron/core"), \
    ("nemo-toolkit", "nemo", "nemo"))), "another copy comes first on the path"'
COPY . .
RUN python -m pip list --format=freeze \
    | grep -iE '^(apex|flash.attn|numpy|torch|torchvision|transformer.engine.*|transformers|triton)==' \
    > /tmp/constraints.txt \
    && python -m pip install --no-cache-dir -c /tmp/constraints.txt .
# NGC's entrypoint stays: it makes a newer CUDA run on an older driver, and then starts what it is given.
CMD ["nemo-sspo", "--help"]

FROM ${ROLLOUT_IMAGE} AS rollout
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# Stages are started as `python`.
RUN command -v python || ln -s "$(command -v python3)" /usr/local/bin/python
WORKDIR /opt/nemo-sspo
COPY . .
RUN python -m pip list --format=freeze \
    | grep -iE '^(flashinfer.*|numpy|torch|torchaudio|torchvision|transformers|triton|vllm|xformers)==' \
    > /tmp/constraints.txt \
    && python -m pip install --no-cache-dir -c /tmp/constraints.txt ".[rollout]"
# The base would serve a model.
ENTRYPOINT []
CMD ["nemo-sspo", "--help"]
