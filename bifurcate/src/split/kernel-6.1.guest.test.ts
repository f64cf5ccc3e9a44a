// Split on the oldest kernel that Debian offers for the guest.
import { sharedGuest } from "@bifurcate/lab/guest/shared";
import { describeSplit } from "../testing/kernel-range.js";

const boot = () => sharedGuest({ nics: "igb,e1000e,virtio,vmxnet3", kernel: "6.1", iommu: "intel" });

describeSplit(
  "Linux 6.1",
  /^6\.1\./,
  boot,
  [
    { nic: "nic0", driver: "igb", xdp: "driver" },
    { nic: "nic1", driver: "e1000e", xdp: "generic" },
    { nic: "nic2", driver: "virtio_net", xdp: "driver" },
    // vmxnet3 has had XDP since Linux 6.6.
    { nic: "nic3", driver: "vmxnet3", xdp: "generic" },
  ],
  [
    {
      nic: "nic2",
      words: ["--flow", "all", "--zero-copy", "require"],
      code: "E_NO_ZERO_COPY",
      why: /./,
    },
    { nic: "nic0", words: ["--flow", "udp port 7777", "--lease"], code: "E_NO_LEASE", why: /7\.1/ },
  ],
);
