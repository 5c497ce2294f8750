# Two images from one file, because NeMo and vLLM pin different transformers, numpy and protobuf (docs/images.md):
#   docker build --target train   -t nemo-sspo:train   .
#   docker build --target rollout -t nemo-sspo:rollout .
# In place of the first one, without NeMo, on a base of today whose own megatron-core trains:
#   docker build --target train-core -t nemo-sspo:train-core .
# The base of `train` is NGC's NeMo container: torch 2.9, Transformer Engine 2.9 and Apex built for Hopper. Where the
# engine does not find it by this name, prefix NGC's registry: --build-arg TRAIN_IMAGE=<registry>/nvidia/nemo:25.11
# What a base has compiled is never replaced: its versions are constraints, so that a conflict ends the build.
ARG TRAIN_IMAGE=nvidia/nemo:25.11
ARG TRAIN_CORE_IMAGE=nvidia/nemo:26.06
ARG ROLLOUT_IMAGE=vllm/vllm-openai:v0.32.0

FROM ${TRAIN_IMAGE} AS train
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# NGC has torch round fp32 products to TF32: precision=fp32 would be none. Its pip constraints would hold for what builds
# this project too. Any user may write to HOME.
ENV TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=0 \
    PIP_CONSTRAINT="" \
    TORCH_CUDA_ARCH_LIST="8.0;9.0+PTX" \
    TORCH_EXTENSIONS_DIR=/opt/torch_extensions \
    HOME=/home/any
WORKDIR /opt/nemo-sspo
COPY . .
RUN install -d -m 1777 "$HOME" \
    && chmod -R a+rX . \
    && python -m pip list --format=freeze \
    | grep -iE '^(apex|flash.attn|numpy|torch|torchvision|transformer.engine.*|triton)==' > /tmp/base.txt \
    && python -m pip install --no-cache-dir -c /tmp/base.txt -c requirements/train-cpu.txt '.[train]' \
    && rm /tmp/base.txt
# NeMo and megatron-core are those that pip put there, and importing the latter compiles nothing any more.
RUN python -m scripts.check_image nemo
# NGC's entrypoint stays: it makes a newer CUDA run on an older driver, and then starts what it is given.
CMD ["nemo-sspo", "--help"]

# megatron-core and Transformer Engine are the base's own, beside what it has compiled: pip adds what is not there.
FROM ${TRAIN_CORE_IMAGE} AS train-core
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ENV TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=0 \
    PIP_CONSTRAINT="" \
    TORCH_CUDA_ARCH_LIST="8.0;9.0+PTX" \
    TORCH_EXTENSIONS_DIR=/opt/torch_extensions \
    HOME=/home/any
WORKDIR /opt/nemo-sspo
COPY . .
RUN install -d -m 1777 "$HOME" \
    && chmod -R a+rX . \
    && python -m pip list --format=freeze \
    | grep -iE '^(apex|flash.attn|megatron.core|numpy|torch|torchvision|transformer.engine.*|transformers|triton)==' > /tmp/base.txt \
    && python -m pip install --no-cache-dir -c /tmp/base.txt '.[train-core]' \
    && rm /tmp/base.txt
RUN python -m scripts.check_image core
CMD ["nemo-sspo", "--help"]

FROM ${ROLLOUT_IMAGE} AS rollout
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ENV HOME=/home/any
# Stages are started as `python`. Any user may write to HOME.
RUN install -d -m 1777 "$HOME" \
    && (command -v python || ln -s "$(command -v python3)" /usr/local/bin/python)
WORKDIR /opt/nemo-sspo
COPY . .
RUN chmod -R a+rX . \
    && python -m pip list --format=freeze \
    | grep -iE '^(flashinfer.*|numpy|torch|torchaudio|torchvision|transformers|triton|vllm|xformers)==' > /tmp/base.txt \
    && python -m pip install --no-cache-dir -c /tmp/base.txt ".[rollout]" \
    && rm /tmp/base.txt
# The base would serve a model.
ENTRYPOINT []
CMD ["nemo-sspo", "--help"]
