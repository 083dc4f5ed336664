# A clean machine to build and check spore on.
#   docker build -t spore .                                      builds, checks
#   docker run --rm spore cat build/spore > spore                takes the binary out
#   docker run --rm --device /dev/kvm spore ./build.sh test      everything, the virtual machines included
FROM debian:12.11

# A layer of its own: only a change of the package list fetches packages again.
COPY configs/build/install.sh configs/build/packages.txt /spore/configs/build/
RUN /spore/configs/build/install.sh build && /spore/configs/build/install.sh test

# Likewise libraries and kernel, minutes of work that most changes do not touch.
COPY configs/build /spore/configs/build
RUN /spore/configs/build/deps.sh
COPY guest/kernel /spore/guest/kernel
RUN /spore/guest/kernel/build.sh

COPY . /spore
WORKDIR /spore
RUN ./build.sh && ./build.sh check
