// Split on the newest kernel that Debian offers for the guest.
import { sharedGuest } from "@bifurcate/lab/guest/shared";
import { describeSplit } from "../testing/kernel-range.js";

const boot = () => sharedGuest({ nics: "igb,e1000e,virtio,vmxnet3", kernel: "stock", iommu: "intel" });

describeSplit(
  "Debian's newest kernel",
  /^[7-9]\./,
  boot,
  [
    { nic: "nic0", driver: "igb", xdp: "driver" },
    { nic: "nic1", driver: "e1000e", xdp: "generic" },
    { nic: "nic2", driver: "virtio_net", xdp: "driver" },
    { nic: "nic3", driver: "vmxnet3", xdp: "driver" },
  ],
  [
    {
      nic: "nic1",
      words: ["--flow", "all", "--zero-copy", "require"],
      code: "E_NO_ZERO_COPY",
      why: /./,
    },
    { nic: "nic0", words: ["--flow", "udp port 7777", "--lease"], code: "E_NO_LEASE", why: /igb/ },
  ],
);
