-- Orthanc: send each CT series to ct-cncl once it is stable, that is, when no object has come for StableAge seconds.
-- The node recognises its own results and ignores them. They are not sent from here, to save the transfer.
-- Orthanc tries once. A transfer that failed (the node was down) is repeated with the next stable series, and when Orthanc starts.

function SendAgain()
  for _, id in ipairs(ParseJson(RestApiGet('/jobs'))) do
    local job = ParseJson(RestApiGet('/jobs/' .. id))
    if job.State == 'Failure' and job.Type == 'DicomModalityStore' and job.Content.RemoteAet == 'NODE' then
      RestApiPost('/jobs/' .. id .. '/resubmit', '{}')
    end
  end
end

function OnStableSeries(seriesId, tags, metadata)
  if tags['Modality'] == 'CT' and metadata['RemoteAET'] ~= 'NODE' then
    SendAgain()
    RestApiPost('/modalities/ct-cncl/store', DumpJson({ Resources = { seriesId }, Asynchronous = true }))
  end
end

function Initialize()
  SendAgain()
end
