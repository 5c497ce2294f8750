# Two images from one file, because NeMo and vLLM pin different transformers, numpy and protobuf:
#   docker build --target train   -t nemo-sspo:train   .
#   docker build --target rollout -t nemo-sspo:rollout .
# The base of `train` is NGC's NeMo container: torch 2.9, Transformer Engine 2.9 and Apex built for Hopper. Where the
# engine does not find it by this name, prefix NGC's registry: --build-arg TRAIN_IMAGE=<registry>/nvidia/nemo:25.11
ARG TRAIN_IMAGE=nvidia/nemo:25.11
ARG ROLLOUT_IMAGE=vllm/vllm-openai:v0.12.0

FROM ${TRAIN_IMAGE} AS train
WORKDIR /opt/nemo-sspo
# The pair this project is tested with; --no-deps keeps the container's torch, Transformer Engine and Apex.
RUN pip install --no-cache-dir --no-deps nemo-toolkit==2.7.3 megatron-core==0.15.3
RUN pip install --no-cache-dir "hydra-core~=1.3.2" "jinja2~=3.1" "plotly>=6.9,<7" "pyarrow>=17" "pydantic>=2.7,<3" \
    "rich>=13" "zarr>=3.0,<4"
COPY . .
RUN pip install --no-cache-dir --no-deps .
ENTRYPOINT []
CMD ["nemo-sspo", "--help"]

FROM ${ROLLOUT_IMAGE} AS rollout
WORKDIR /opt/nemo-sspo
COPY . .
RUN pip install --no-cache-dir . "sentence-transformers>=5.1,<7"
ENTRYPOINT []
CMD ["nemo-sspo", "--help"]
