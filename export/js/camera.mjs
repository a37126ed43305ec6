// A dialog with what the camera sees.

const TROUBLE = {
  NotAllowedError: "this page is not allowed to use the camera",
  NotFoundError: "no camera was found",
  NotReadableError: "the camera is in use elsewhere",
};

/** The button opens the dialog; `take` gets each picture as a file, `fail` an error. */
export function camera(button, dialog, take, fail) {
  const video = dialog.querySelector("video");
  let pictures = 0;
  button.hidden = !navigator.mediaDevices; // which there is on HTTPS and on the own machine only

  button.onclick = async () => {
    try {
      const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
      if (dialog.open) return stop(stream); // pressed twice: of this one nobody would let go
      video.srcObject = stream;
      dialog.showModal();
    } catch (error) {
      fail(new Error(TROUBLE[error.name] ?? (error.message || error.name)));
    }
  };
  dialog.onclose = () => stop(video.srcObject);
  dialog.querySelector("#shutter").onclick = async () => {
    if (!video.videoWidth) return; // it has not seen anything yet
    const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
    canvas.getContext("2d").drawImage(video, 0, 0);
    dialog.close();
    take(new File([await canvas.convertToBlob()], `picture ${++pictures}.png`, { type: "image/png" }));
  };
}

const stop = (stream) => stream.getTracks().forEach((track) => track.stop());
