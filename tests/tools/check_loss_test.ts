import { assertEquals } from "@std/assert";
import { complaint, losses } from "../../tools/check_loss.ts";

Deno.test("the losses of the last run in a file are read, validations left out", () => {
  const loss = "loss_metrics/global_avg_loss";
  const lines = [{ run: {} }, { [loss]: 9 }, { run: {} }, { [loss]: 7 }, { "validation_metrics/loss": 6 }, {
    [loss]: null,
  }];
  assertEquals(losses(lines), [7, NaN]);
});

Deno.test("a run learned something where its loss fell by enough and is a number", () => {
  assertEquals(complaint([7, 8, 6.5], 0.5), undefined);
  assertEquals(complaint([7, 6.6], 0.5), "expected the loss to fall by 0.5, it went from 7 to 6.6");
  assertEquals(complaint([7, NaN], 0.5), "expected the loss to fall by 0.5, it went from 7 to NaN");
  assertEquals(complaint([7], 0.5), "expected at least two reported losses, got 1");
});
