import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { fromFileUrl } from "@std/path";
import { describeFound, lacking, lackingRefusal, parseFound, wheelsOf } from "../../tools/cuda_libraries.ts";
import { Project } from "./setup_project.ts";

const CMAKE = Deno.readTextFileSync(fromFileUrl(new URL("../../csrc/cmake/cuda_libraries.cmake", import.meta.url)));
const some = parseFound("toolkit 12.8\ncublaslt /opt/cuda\ncudnn \ncudnn_frontend \nnccl /usr\nnvrtc /opt/cuda\n");

/** A wheel as pip unpacks it: its files, by the name that pip is asked for. */
const WHEELS = `
  nvidia-cublas==*) dir=nvidia/cu13 library=libcublasLt.so.13 header=cublasLt.h ;;
  nvidia-cuda-nvrtc==*) dir=nvidia/cu13 library=libnvrtc.so.13 header=nvrtc.h ;;
  nvidia-cudnn-cu13==*) dir=nvidia/cudnn library=libcudnn.so.9 header=cudnn.h ;;
  nvidia-nccl-cu13==*) dir=nvidia/nccl library=libnccl.so.2 header=nccl.h ;;
  nvidia-cudnn-frontend==*) dir=. library=none header=cudnn_frontend.h ;;`;

/** A project with a module for GPUs, NVIDIA's compiler that says its release, and a pip of files with the right names. */
function gpuProject(): Project {
  const project = new Project();
  const cmake = Deno.readTextFileSync(`${project.root}/csrc/CMakeLists.txt`);
  const module = "if(TITAN_CUDA)\ninclude(cmake/cuda_libraries.cmake)\nadd_library(titan_cuda MODULE a.cpp)\n" +
    "set_target_properties(titan_cuda PROPERTIES SUFFIX .so)\nadd_dependencies(titan titan_cuda)\nendif()\n";
  project.write("csrc/CMakeLists.txt", `${cmake}\n${module}`);
  project.write("csrc/cmake/cuda_libraries.cmake", CMAKE);
  project.write("toolkit/bin/nvcc", '#!/bin/sh\necho "Cuda compilation tools, release 13.0, V13.0.88"\n', 0o755);
  project.write(
    "bin/python3",
    `#!/bin/sh
echo "$@" >> ${project.root}/asked
[ "$3" = --version ] && exit 0
to=$6
shift 6
for wheel; do
  case $wheel in ${WHEELS}
  esac
  mkdir -p "$to/$dir/lib" "$to/$dir/include"
  [ $library = none ] || touch "$to/$dir/lib/$library"
  touch "$to/$dir/include/$header"
done
`,
    0o755,
  );
  project.path = `${project.root}/bin:${project.path}`;
  project.env = { CUDA_HOME: `${project.root}/toolkit`, CUDNN_ROOT: "", NCCL_ROOT: "", CMAKE_PREFIX_PATH: "" };
  return project;
}

const asked = ({ root }: Project): string[] => Deno.readTextFileSync(`${root}/asked`).trim().split("\n");

Deno.test("setup --cuda fetches libraries that the system lacks, says where all are, and is done with that", async () => {
  using project = gpuProject();
  const first = await project.setup("--cuda");
  assertEquals(first.code, 0, first.text);
  const [version, install, ...more] = asked(project);
  assertEquals([version, more], ["-m pip --version", []]);
  assertStringIncludes(install, "-m pip install --no-deps --target build/cuda_parts.new nvidia-cublas==13.");
  assertStringIncludes(first.text, "For GPUs, with the CUDA toolkit 13.0: cuBLASLt, NVRTC in ");
  assertStringIncludes(first.text, "/build/cuda_parts/nvidia/cu13");
  assertEquals(await project.setup("--cuda"), { code: 0, text: "" });
  project.write("csrc/a.cpp", "int f() { return 2; }"); // a build anew fetches nothing
  const again = await project.setup();
  assertEquals(again.code, 0, again.text);
  assertEquals(asked(project).length, 2);
});

Deno.test("libraries of another version than today's are fetched anew, in the place of the old ones", async () => {
  using project = gpuProject();
  assertEquals((await project.setup("--cuda")).code, 0);
  project.write("build/cuda_parts/nvidia_cublas-13.0.0.1.dist-info/METADATA", "");
  const again = await project.setup("--again", "--cuda");
  assertEquals(again.code, 0, again.text);
  assertStringIncludes(again.text, "Fetching NVIDIA's libraries");
  assertEquals(
    [...Deno.readDirSync(`${project.root}/build/cuda_parts`)].some(({ name }) => /dist-info/.test(name)),
    false,
  );
});

Deno.test("where a toolkit has a library, it is not fetched", async () => {
  using project = gpuProject();
  project.write("toolkit/lib64/libcublasLt.so.13", "");
  project.write("toolkit/include/cublasLt.h", "");
  const { code, text } = await project.setup("--cuda");
  assertEquals(code, 0, text);
  assertStringIncludes(text, `cuBLASLt in ${project.root}/toolkit`);
  assertEquals(asked(project)[1].includes("cublas"), false);
});

Deno.test("without pip, and where pip fails, one message says what is missing and how to get it, and nothing is half there", async () => {
  for (
    const [python, why] of [
      ["exit 1", "pip is not there, which would fetch them"],
      ['[ "$3" = --version ] || { mkdir -p "$6"; echo "Network is unreachable"; exit 1; }', "Network is unreachable"],
    ]
  ) {
    using project = gpuProject();
    project.write("bin/python3", `#!/bin/sh\n${python}\n`, 0o755);
    const { code, text } = await project.setup("--cuda");
    assertEquals(code, 1);
    assertStringIncludes(text, "Cannot build the module for GPUs: cuBLASLt, ");
    assertStringIncludes(text, why);
    assertStringIncludes(text, "  expected: in build/cuda_parts, ");
    assertStringIncludes(text, "libcublas-dev-13-0 ");
    assertEquals(text.includes("Configuring"), false);
    assertEquals([...Deno.readDirSync(`${project.root}/build`)].some(({ name }) => name === "cuda_parts"), false);
  }
});

Deno.test("CMake alone refuses a module for GPUs without libraries, and names them", async () => {
  using project = gpuProject();
  const args = ["-S", "csrc", "-B", "build/cmake", `-DTITAN_CUDA=${project.root}/toolkit/bin/nvcc`];
  const { success, stderr } = await new Deno.Command("cmake", { args, cwd: project.root, env: project.env }).output();
  assertEquals(success, false);
  const text = new TextDecoder().decode(stderr).replaceAll(/\s+/g, " ");
  assertStringIncludes(text, "The module for GPUs needs cublaslt, ");
  assertStringIncludes(text, "fix: npx -y deno task setup --cuda");
});

Deno.test("what CMake found is read, and told by folder", () => {
  assertEquals(lacking(some), ["cudnn", "cudnn_frontend"]);
  assertEquals(
    describeFound(some),
    "For GPUs, with the CUDA toolkit 12.8: cuBLASLt, NVRTC in /opt/cuda; NCCL in /usr",
  );
});

Deno.test("wheels are those of the toolkit's major version, each pinned; of an unknown one there are none", () => {
  const all = ["cublaslt", "cudnn", "cudnn_frontend", "nccl", "nvrtc"] as const;
  for (const [toolkit, suffix] of [["12.8", "-cu12=="], ["13.0", "-cu13=="]]) {
    const wheels = wheelsOf(toolkit, all)!;
    for (const wheel of wheels) assert(/^nvidia-[a-z0-9-]+==\d+(\.\d+)+$/.test(wheel), wheel);
    assert(wheels.some((wheel) => wheel.includes(suffix)));
    assert(!wheels.some((wheel) => wheel.includes(suffix === "-cu12==" ? "-cu13==" : "-cu12==")));
  }
  assertEquals(wheelsOf("14.0", all), undefined);
});

Deno.test("who has no pip is told the package of it, and NVIDIA's packages of what is missing alone", () => {
  const text = lackingRefusal(some, { root: false, packageManager: "apt-get", anew: "" }, "pip is not there");
  assertStringIncludes(text, "fix: sudo apt-get install -y python3-pip, or install them from NVIDIA's repository");
  assertStringIncludes(text, "(libcudnn9-dev-cuda-12 cudnn-frontend), or ");
});
