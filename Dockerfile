# seif_nemo on the NGC NeMo image: PyTorch with CUDA, Megatron-core, Transformer Engine and Apex are NVIDIA's builds for one another
# and stay as they are. pip adds the project without its dependencies, and the few small packages that the image lacks.
#
#   docker build -t seif_nemo .
#   enroot import -o seif_nemo.sqsh dockerd://seif_nemo        # then: SEIF_CONTAINER=$PWD/seif_nemo.sqsh sbatch slurm/round.sh …
#
# Written where no Docker engine runs: its rules are tested (tests/unit/tools/test_dockerfile.py), the build is not.
# Choose the image whose Megatron-core comes nearest to the range in pyproject.toml; the build prints what it found.
ARG NEMO_IMAGE=nvcr.io/nvidia/nemo:26.02.01
FROM ${NEMO_IMAGE}

WORKDIR /opt/seif_nemo

# First what changes seldom. missing_requirements.py prints what pyproject.toml asks for and the image has in no version;
# it never prints torch, megatron-core, transformer-engine or apex.
COPY pyproject.toml LICENSE README.md ./
COPY tools/missing_requirements.py tools/
RUN python tools/missing_requirements.py > /tmp/missing.txt \
    && python -m pip install --no-cache-dir -r /tmp/missing.txt \
    && rm /tmp/missing.txt

COPY seif_nemo seif_nemo
COPY conf conf
COPY slurm slurm
COPY tools tools
RUN python -m pip install --no-cache-dir --no-deps --editable . \
    && python -c "import megatron.core, transformer_engine, seif_nemo; print('megatron-core', megatron.core.__version__)"

ENV OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive
CMD ["python", "-m", "seif_nemo", "--help"]
