// `bifurcate doctor [DEV]`: what is wrong with this machine and its cards, and the command that mends each thing.

import { Command } from "commander";
import { examine } from "@bifurcate/control/doctor/examine";
import { machineFiles } from "@bifurcate/control/doctor/files";
import { BifurcateError } from "@bifurcate/control/errors";
import { nativeKernel } from "@bifurcate/control/native";
import { openNetns } from "@bifurcate/control/prepare";
import { jsonLine, type Streams } from "../io.js";
import { renderExamination } from "../render/doctor.js";
import { reportTo } from "../report.js";

const HELP = `
Examples:
  bifurcate doctor                         the machine, and every card that is up
  bifurcate doctor eth0 --json
  bifurcate doctor nic0 --netns bflab-host
  bifurcate doctor --output report.txt

Exit status: 0 no problem, 1 problems (E_UNHEALTHY); advice is no problem. Nothing is changed.
`;

interface DoctorFlags {
  readonly netns?: string;
  readonly json?: true;
  readonly output?: string;
}

/** The command. */
export function doctorCommand(streams: Streams): Command {
  return new Command("doctor")
    .description("say what is wrong with this machine and its cards, and what mends it")
    .argument("[DEV]", "only this card")
    .option("--netns <NAME>", "look in this network namespace (a name or a path)")
    .option("--output <FILE>", "write the report to a file")
    .option("--json", "one JSON document")
    .addHelpText("after", HELP)
    .action((ifname: string | undefined, flags: DoctorFlags) => {
      const write = reportTo(streams, flags.output);
      const kernel = nativeKernel();
      const netns = openNetns(kernel, flags.netns ?? null);
      try {
        const found = examine(kernel, netns, machineFiles, { ifname: ifname ?? null });
        const problems = found.findings.filter((each) => each.level === "problem");
        write(
          flags.json === true
            ? jsonLine({ healthy: problems.length === 0, ...found })
            : renderExamination(found),
        );
        if (problems.length === 0) return;
        const names = [...new Set(problems.map((each) => `${each.subject}: ${each.name}`))];
        throw new BifurcateError("E_UNHEALTHY", {
          what: `examine ${ifname ?? "the machine"}`,
          why: `${problems.length === 1 ? "a problem was" : `${problems.length} problems were`} found: ${names.join(", ")}`,
          data: { problems: names },
        });
      } finally {
        netns.close();
      }
    });
}
